"""The shop over HTTP. Serve it with `uvicorn shop.main:app`."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from typing import Annotated

import sqlalchemy as sa
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from shop import models

sessions = async_sessionmaker(models.engine, expire_on_commit=False)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Closes the engine at the end."""
    async with AsyncExitStack() as exits:
        exits.push_async_callback(models.engine.dispose)
        yield


async def opened() -> AsyncIterator[AsyncSession]:
    """A session for one request."""
    async with sessions() as session:
        yield session


app = FastAPI(lifespan=lifespan)
Session = Annotated[AsyncSession, Depends(opened)]


class NewProduct(BaseModel):
    """What a client sends: the supplier by its name, which need not be known yet."""

    name: str = Field(min_length=1, max_length=200)
    price: Decimal = Field(ge=0, max_digits=10, decimal_places=2)
    supplier: str = Field(min_length=1, max_length=200)


class ProductView(BaseModel):
    """A product on its page."""

    name: str
    price: Decimal
    supplier: str


class ProductLine(BaseModel):
    """A product in the list."""

    id: int
    name: str


@app.get("/products", response_model=list[ProductLine])
async def list_products(db: Session) -> Sequence[models.Product]:
    """The products by name."""
    return (await db.scalars(sa.select(models.Product).order_by(models.Product.name).limit(100))).all()


@app.get("/products/{number}")
async def get_product(number: int, db: Session) -> ProductView:
    """The page of one product."""
    return view(await found(db, number))


@app.post("/products", status_code=201)
async def add_product(new: NewProduct, db: Session, request: Request, response: Response) -> ProductView:
    """Adds a product; `Location` is its page."""
    product = models.Product(name=new.name, price=new.price, supplier=await supplier(db, new.supplier))
    db.add(product)
    await store(db)
    response.headers["Location"] = str(request.url_for("get_product", number=product.id))
    return view(product)


@app.put("/products/{number}")
async def change_product(number: int, new: NewProduct, db: Session) -> ProductView:
    """Changes a product."""
    product = await found(db, number)
    product.name, product.price, product.supplier = new.name, new.price, await supplier(db, new.supplier)
    await store(db)
    return view(product)


async def found(db: AsyncSession, number: int) -> models.Product:
    """The product with this number; status 404 without one."""
    product = await db.get(models.Product, number)
    if product is None:
        raise HTTPException(404)
    return product


async def supplier(db: AsyncSession, name: str) -> models.Supplier:
    """The supplier of this name, which is new if there is none yet."""
    known = await db.scalar(sa.select(models.Supplier).where(models.Supplier.name == name).limit(1))
    return known or models.Supplier(name=name)


async def store(db: AsyncSession) -> None:
    """Commits what a request has changed."""
    await db.commit()


def view(product: models.Product) -> ProductView:
    """A product as it goes out."""
    return ProductView(name=product.name, price=product.price, supplier=product.supplier.name)
