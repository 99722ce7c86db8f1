// NestJS with its CQRS module, on Fastify, from Redis through ioredis.
import 'reflect-metadata';
import { Controller, Get, Header, Inject, Module, NotFoundException, Param } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { CqrsModule, IQueryHandler, Query, QueryBus, QueryHandler } from '@nestjs/cqrs';
import { FastifyAdapter, NestFastifyApplication } from '@nestjs/platform-fastify';
import Redis from 'ioredis';

const REDIS = Symbol('redis');

interface BookView {
  id: number;
  title: string;
  author: string;
  published_date: string | null;
  isbn: string | null;
  stock_quantity: number;
}

class GetBook extends Query<BookView | null> {
  constructor(readonly title: string) {
    super();
  }
}

class GetBookText extends Query<string | null> {
  constructor(readonly title: string) {
    super();
  }
}

@QueryHandler(GetBook)
class GetBookHandler implements IQueryHandler<GetBook> {
  constructor(@Inject(REDIS) private readonly redis: Redis) {}

  async execute(query: GetBook): Promise<BookView | null> {
    const found = await this.redis.get(`book:${query.title}`);
    return found === null ? null : (JSON.parse(found) as BookView);
  }
}

@QueryHandler(GetBookText)
class GetBookTextHandler implements IQueryHandler<GetBookText> {
  constructor(@Inject(REDIS) private readonly redis: Redis) {}

  async execute(query: GetBookText): Promise<string | null> {
    return this.redis.get(`book:${query.title}`);
  }
}

@Controller()
class BooksController {
  constructor(private readonly queries: QueryBus) {}

  // As the documentation advises: the query handler gives a view, the framework makes JSON of it.
  @Get('books/:title')
  async getBook(@Param('title') title: string): Promise<BookView> {
    const book = await this.queries.execute(new GetBook(title));
    if (book === null) {
      throw new NotFoundException();
    }
    return book;
  }

  // What can be saved: the stored text goes out as it is.
  @Get('texts/:title')
  @Header('content-type', 'application/json')
  async getBookText(@Param('title') title: string): Promise<string> {
    const text = await this.queries.execute(new GetBookText(title));
    if (text === null) {
      throw new NotFoundException();
    }
    return text;
  }
}

@Module({
  imports: [CqrsModule.forRoot()],
  controllers: [BooksController],
  providers: [
    {
      provide: REDIS,
      useFactory: () => new Redis(process.env.REDIS_URL as string, { enableAutoPipelining: true }),
    },
    GetBookHandler,
    GetBookTextHandler,
  ],
})
class AppModule {}

async function main(): Promise<void> {
  const app = await NestFactory.create<NestFastifyApplication>(AppModule, new FastifyAdapter(), {
    logger: ['error', 'warn'],
  });
  await app.listen(Number(process.env.PORT), process.env.HOST as string);
  console.log('Listening');
}

void main();
