"""What a person points at, understood: a file, a folder, an archive becomes one `Product`.

    find_product(uri) -> Product     the kind, its bands and metadata, and one path that GDAL opens

Each kind has a module of its own here; `geounet.scene` makes a `Scene` of a product.
"""

from geounet.products.finding import find_product
from geounet.products.product import CloudLayer, Layer, Product
from geounet.products.stacking import Stack, stack

__all__ = ["CloudLayer", "Layer", "Product", "Stack", "find_product", "stack"]
