import { NodeRedis } from "@effect/platform-node"
import { BentoCache, bentostore } from "bentocache"
import { memoryDriver } from "bentocache/drivers/memory"
import type { L2CacheDriver } from "bentocache/types"
import { createCache } from "cache-manager"
import { Cache, Context, Effect, Layer, Logger, Schema, Scope } from "effect"
import { ToolMeta, ToolPipeline } from "effect-toolops"
import {
  CacheKey,
  CacheMiddleware,
  CacheStore,
  RedisCacheStore,
  TieredCacheStore,
  ToolCache
} from "effect-toolops/cache"
import { SqliteCacheStore } from "effect-toolops/node"
import { Persistable, PersistedCache, Persistence } from "effect/persistence"
import { Keyv } from "keyv"
import { LRUCache } from "lru-cache"
import { spawn } from "node:child_process"
import { createHash, hash } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { createClient } from "redis"
import { stringify } from "safe-stable-stringify"
import { startWorkers } from "../support/workers.ts"
import type { Case, Group } from "./harness.ts"

const input110 = {
  query: "open issues about the cache",
  repo: "octo/toolops",
  limit: 20,
  labels: ["bug", "help wanted"],
  closed: false
}

const rows = (count: number) => ({
  table: "events",
  rows: Array.from({ length: count }, (_, i) => ({
    id: i,
    name: `row number ${i}`,
    at: "2026-01-01T00:00:00Z",
    tags: ["a", "b"],
    value: i * 1.25,
    note: "nothing to see here"
  }))
})
const row = Schema.Struct({
  id: Schema.Finite,
  name: Schema.String,
  at: Schema.String,
  tags: Schema.Array(Schema.String),
  value: Schema.Finite,
  note: Schema.String
})
const inputs: ReadonlyArray<readonly [string, unknown, Schema.Codec<any, any>]> = [
  [
    "110 B",
    input110,
    Schema.Struct({
      query: Schema.String,
      repo: Schema.String,
      limit: Schema.Finite,
      labels: Schema.Array(Schema.String),
      closed: Schema.Boolean
    })
  ],
  ["2 KB", rows(17), Schema.Struct({ table: Schema.String, rows: Schema.Array(row) })],
  ["60 KB", rows(500), Schema.Struct({ table: Schema.String, rows: Schema.Array(row) })]
]

const answer = { total: 2, items: [{ id: 1, title: "first" }, { id: 2, title: "second" }] }

const repeat = (effect: Effect.Effect<unknown, unknown>) => (n: number) =>
  Effect.runPromise(Effect.gen(function*() {
    let last: unknown = undefined
    for (let i = 0; i < n; i++) last = yield* effect
    return last
  }))

const loop = (step: (i: number) => unknown) => (n: number) => {
  let last: unknown = undefined
  for (let i = 0; i < n; i++) last = step(i)
  return last
}

const loopAsync = (step: (i: number) => Promise<unknown>) => async (n: number) => {
  let last: unknown = undefined
  for (let i = 0; i < n; i++) last = await step(i)
  return last
}

const isAnswer: NonNullable<Case["check"]> = (result) => {
  if (JSON.stringify(result) !== JSON.stringify(answer)) throw new Error("not the answer")
}

const isEntry: NonNullable<Case["check"]> = (result) => {
  if (result === undefined || result === null) throw new Error("nothing was found")
}

const keyGroup = (): Group => ({
  name: "cache key",
  cases: inputs.flatMap(([size, input, schema]): ReadonlyArray<Case> => {
    const plain = ToolMeta.make({ name: "plain", varies: "everyone" })
    const typed = ToolMeta.make({ name: "typed", varies: "everyone", input: schema })
    const plainKey = CacheKey.forTool(plain)
    const typedKey = CacheKey.forTool(typed)
    return [
      {
        name: `safe-stable-stringify + hash, ${size}`,
        run: loop(() => hash("sha256", stringify(input)!)),
        check: isEntry
      },
      {
        name: `any JSON, ${size}`,
        run: loop(() => plainKey(input, "call", undefined)),
        check: isEntry,
        baseline: `safe-stable-stringify + hash, ${size}`,
        goal: 1
      },
      {
        name: `JSON.stringify + hash, ${size}`,
        run: loop(() => hash("sha256", JSON.stringify(input))),
        check: isEntry
      },
      {
        name: `with a Schema, ${size}`,
        run: loop(() => typedKey(input, "call", undefined)),
        check: isEntry,
        baseline: `JSON.stringify + hash, ${size}`,
        goal: 1.1
      }
    ]
  })
})

const cached = CacheMiddleware.layer.pipe(Layer.provideMerge(ToolCache.layer))

const hitGroup = async (): Promise<Group> => {
  const pipeline = await Effect.runPromise(
    Effect.provide(ToolPipeline.make(CacheMiddleware.CacheMiddleware), Layer.provide(cached, CacheStore.layerMemory()))
  )
  const tool = ToolMeta.make({ name: "search", readOnly: true })
  const call = pipeline.wrap(tool, () => Effect.succeed(answer))
  const keyOf = (input: unknown) => hash("sha256", stringify(input)!)
  const bento = new BentoCache({
    default: "memory",
    stores: { memory: bentostore().useL1Layer(memoryDriver({ maxItems: 10_000 })) }
  })
  const keyv = new Keyv()
  const manager = createCache()
  const effectCache = await Effect.runPromise(
    Cache.make({ capacity: 10_000, lookup: (_key: string) => Effect.succeed(answer) })
  )
  return {
    name: "cache hit, key of a 110-byte input included",
    cases: [
      {
        name: "bentocache",
        run: loopAsync(() => bento.getOrSet({ key: keyOf(input110), factory: () => answer, ttl: "5m" })),
        check: isAnswer
      },
      {
        name: "cache stage",
        run: repeat(Effect.suspend(() => call(input110))),
        check: isAnswer,
        baseline: "bentocache",
        goal: 0.5
      },
      {
        name: "keyv",
        run: loopAsync(async () =>
          (await keyv.get(keyOf(input110))) ?? (await keyv.set(keyOf(input110), answer), answer)
        ),
        check: isAnswer
      },
      { name: "cache-manager", run: loopAsync(() => manager.wrap(keyOf(input110), () => answer)), check: isAnswer },
      {
        name: "Effect Cache",
        run: repeat(Effect.suspend(() => Cache.get(effectCache, keyOf(input110)))),
        check: isAnswer
      }
    ]
  }
}

/** A fixed sequence of indexes: one hot, uniform, or Zipf with exponent 1. */
const pattern = (kind: string, size: number): Uint32Array => {
  const sequence = new Uint32Array(1 << 14)
  let seed = 42
  const next = () => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) / 2 ** 32
  const harmonic = Math.log(size)
  for (let i = 0; i < sequence.length; i++) {
    sequence[i] = kind === "hot"
      ? 0
      : kind === "uniform"
      ? next() * size
      : Math.min(size - 1, Math.exp(next() * harmonic) - 1)
  }
  return sequence
}

const storeGroup = async (): Promise<Group> => {
  const cases: Array<Case> = []
  const entry = { text: JSON.stringify(answer), freshMillis: 3e5, keepMillis: 3e5, labels: ["tool:t"], mark: undefined }
  const stored = (layer: Layer.Layer<CacheStore.CacheStore>) =>
    Effect.runPromise(Effect.provide(Effect.map(CacheStore.CacheStore, (store) => store), layer))
  for (const size of [1000, 100_000]) {
    const store = await stored(CacheStore.layerMemory({ maxEntries: size, maxBytes: 2 ** 31 }))
    const keys = Array.from({ length: size }, (_, i) => `cache:t:${hash("sha256", String(i))}`)
    const lru = new LRUCache<string, object>({ max: size })
    await Effect.runPromise(Effect.forEach(keys, (key) => store.set(key, entry), { discard: true }))
    for (const key of keys) lru.set(key, entry)
    for (const kind of ["hot", "zipf", "uniform"]) {
      const sequence = pattern(kind, size)
      const name = `${kind} key of ${size}`
      cases.push(
        { name: `lru-cache get, ${name}`, run: loop((i) => lru.get(keys[sequence[i & 16383]!]!)), check: isEntry },
        {
          name: `memory store get, ${name}`,
          run: (n) => {
            let i = 0
            return repeat(Effect.suspend(() => store.get(keys[sequence[i++ & 16383]!]!)))(n)
          },
          check: isEntry,
          baseline: `lru-cache get, ${name}`,
          goal: 10
        }
      )
    }
  }
  for (const size of [1000, 100_000]) {
    const store = await stored(CacheStore.layerMemory({ maxEntries: size, maxBytes: 2 ** 31 }))
    let i = 0
    const fresh = () => `cache:t:${String(i++).padStart(64, "0")}`
    await Effect.runPromise(
      Effect.forEach(Array.from({ length: size }), () => store.set(fresh(), entry), { discard: true })
    )
    cases.push({
      name: `memory store set + eviction, ${size}`,
      run: (n) => repeat(Effect.suspend(() => store.set(fresh(), entry)))(n),
      ...(size === 1000 ? {} : { baseline: "memory store set + eviction, 1000", goal: 2 })
    })
  }
  return { name: "cache store", cases }
}

const stampedeGroup = async (): Promise<Group> => {
  const pipeline = await Effect.runPromise(
    Effect.provide(ToolPipeline.make(CacheMiddleware.CacheMiddleware), Layer.provide(cached, CacheStore.layerMemory()))
  )
  const tool = ToolMeta.make({ name: "search", readOnly: true })
  let round = 0
  let runs = 0
  return {
    name: "cache stampede of 1,000: executions",
    cases: [{
      name: "cache stage",
      figure: true,
      ops: 1,
      goal: 1,
      run: async () => {
        runs = 0
        const call = pipeline.run(
          { tool, input: round++ },
          Effect.promise(async () => {
            runs++
            await new Promise((resolve) => setTimeout(resolve, 5))
            return answer
          })
        )
        await Effect.runPromise(Effect.all(Array.from({ length: 1000 }, () => call), { concurrency: "unbounded" }))
        return runs
      }
    }]
  }
}

const sqliteGroup = async (): Promise<Group> => {
  const folder = mkdtempSync(join(tmpdir(), "toolops-bench-"))
  const text = JSON.stringify("x".repeat(1000))
  const entry = { text, freshMillis: 3e6, keepMillis: 3e6, labels: ["tool:t"], mark: undefined }
  const bare = new DatabaseSync(join(folder, "bare.db"))
  bare.exec("PRAGMA journal_mode = WAL; CREATE TABLE t (key TEXT PRIMARY KEY, text TEXT NOT NULL) STRICT")
  const keys = Array.from({ length: 1000 }, (_, i) => `cache:t:${createHash("sha256").update(String(i)).digest("hex")}`)
  const insert = bare.prepare("INSERT INTO t VALUES (?, ?)")
  for (const key of keys) insert.run(key, text)
  const select = bare.prepare("SELECT text FROM t WHERE key = ?")
  const layer = SqliteCacheStore.layer({ path: join(folder, "cache.db") })
  const store = await kept(Effect.map(CacheStore.CacheStore, (service) => service), layer)
  await Effect.runPromise(Effect.forEach(keys, (key) => store.set(key, entry), { discard: true }))
  return {
    name: "cache in SQLite, 1 KB",
    close: () => rmSync(folder, { recursive: true, force: true }),
    cases: [
      { name: "prepared SELECT", run: loop((i) => select.get(keys[i % 1000]!)), check: isEntry },
      {
        name: "SQLite store get",
        run: (n) => {
          let i = 0
          return repeat(Effect.suspend(() => store.get(keys[i++ % 1000]!)))(n)
        },
        check: isEntry,
        baseline: "prepared SELECT",
        goal: 1.3
      }
    ]
  }
}

/** Runs a layer for as long as the process, and gives what `read` takes from it. */
const kept = <I, A>(read: Effect.Effect<A, never, I>, layer: Layer.Layer<I, unknown>): Promise<A> =>
  new Promise((resolve, reject) => {
    Effect.runFork(
      Effect.provide(
        Effect.flatMap(read, (value) => {
          resolve(value)
          return Effect.never
        }),
        layer
      )
    ).addObserver(reject)
  })

// The server ends before its clients do, which is nothing to be told of.
const redisAt = (url: string) => NodeRedis.layer({ url }).pipe(Layer.provide(Logger.layer([])))

const redisServer = async () => {
  const port = await new Promise<number>((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const address = server.address()
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0))
    })
  })
  const server = spawn("redis-server", ["--port", String(port), "--save", "", "--appendonly", "no"], {
    stdio: "ignore"
  })
  const url = `redis://127.0.0.1:${port}`
  const client = createClient({ url, socket: { reconnectStrategy: 50 } })
  client.on("error", () => {})
  await client.connect()
  return {
    url,
    client,
    close: () => {
      server.kill("SIGKILL")
    }
  }
}

const redisGroup = async (): Promise<Group> => {
  const { client, close, url } = await redisServer()
  const text = JSON.stringify("x".repeat(1000))
  await client.set("bare", text)
  const store = await kept(
    Effect.map(CacheStore.CacheStore, (service) => service),
    RedisCacheStore.layer({ commandTimeout: "1 second" }).pipe(Layer.provide(redisAt(url)))
  )
  await Effect.runPromise(
    store.set("cache:t:1", { text, freshMillis: 3e6, keepMillis: 3e6, labels: ["tool:t"], mark: undefined })
  )
  return {
    name: "cache in Redis, 1 KB",
    close,
    cases: [
      { name: "node-redis GET", run: loopAsync(() => client.get("bare")), check: isEntry },
      {
        name: "Redis store get",
        run: repeat(Effect.suspend(() => store.get("cache:t:1"))),
        check: isEntry,
        baseline: "node-redis GET",
        goal: 1.15
      }
    ]
  }
}

type Client = Awaited<ReturnType<typeof redisServer>>["client"]

/** bentocache's second layer over the same client as ours, since the one that it brings wants another client. */
class NodeRedisDriver implements L2CacheDriver {
  readonly type = "l2"
  readonly client: Client
  readonly prefix: string

  constructor(client: Client, prefix: string) {
    this.client = client
    this.prefix = prefix
  }

  namespace(name: string) {
    return new NodeRedisDriver(this.client, `${this.prefix}:${name}`)
  }
  async get(key: string) {
    return await this.client.get(`${this.prefix}:${key}`) ?? undefined
  }
  async pull(key: string) {
    return await this.client.getDel(`${this.prefix}:${key}`) ?? undefined
  }
  async set(key: string, value: string, ttl?: number) {
    await this.client.set(
      `${this.prefix}:${key}`,
      value,
      ttl === undefined ? {} : { expiration: { type: "PX", value: ttl } }
    )
    return true
  }
  async delete(key: string) {
    return await this.client.del(`${this.prefix}:${key}`) > 0
  }
  async deleteMany(keys: Array<string>) {
    return await this.client.del(keys.map((key) => `${this.prefix}:${key}`)) > 0
  }
  async clear() {
    await this.client.flushDb()
  }
  async disconnect() {}
}

class Question extends Persistable.Class<{ payload: { readonly key: string } }>()("Question", {
  primaryKey: ({ key }) => key,
  success: Schema.Unknown
}) {}

const sharedGroup = async (): Promise<Group> => {
  const { client, close, url } = await redisServer()
  const keyOf = (input: unknown) => hash("sha256", stringify(input)!)
  const stage = (layer: Layer.Layer<CacheStore.CacheStore, unknown>) =>
    kept(
      Effect.map(ToolPipeline.make(CacheMiddleware.CacheMiddleware), (pipeline) =>
        pipeline.wrap(ToolMeta.make({ name: "search", readOnly: true }), () => Effect.succeed(answer))),
      cached.pipe(Layer.provide(layer))
    )
  const overRedis = RedisCacheStore.layer({ commandTimeout: "1 second" }).pipe(Layer.provide(redisAt(url)))
  const redis = await stage(overRedis)
  const tiered = await stage(TieredCacheStore.layer({ l1Ttl: "1 hour" }).pipe(Layer.provide(overRedis)))
  const bento = new BentoCache({
    default: "tiered",
    stores: {
      redis: bentostore().useL2Layer({
        options: {},
        factory: () => new NodeRedisDriver(client, "bento")
      }),
      tiered: bentostore().useL1Layer(memoryDriver({ maxItems: 10_000 })).useL2Layer({
        options: {},
        factory: () => new NodeRedisDriver(client, "bento")
      })
    }
  })
  const persisted = (inMemoryTTL: number) =>
    kept(
      PersistedCache.make<Question>(() => Effect.succeed<unknown>(answer), {
        storeId: "persisted",
        timeToLive: () => "1 hour",
        inMemoryTTL: () => inMemoryTTL
      }),
      Layer.merge(
        Persistence.layerRedis.pipe(Layer.provide(redisAt(url))),
        Layer.effectContext(
          Effect.map(Effect.scope, (scope) => Context.make(Scope.Scope, scope))
        )
      )
    )
  const [persistedRedis, persistedTiered] = [await persisted(0), await persisted(3_600_000)]
  const ask = (store: "redis" | "tiered") =>
    loopAsync(() => bento.use(store).getOrSet({ key: keyOf(input110), factory: () => answer, ttl: "5m" }))
  const question = (cache: typeof persistedRedis) =>
    repeat(Effect.suspend(() => cache.get(new Question({ key: keyOf(input110) }))))
  return {
    name: "cache hit over Redis, key of a 110-byte input included",
    close,
    cases: [
      { name: "bentocache, Redis", run: ask("redis"), check: isAnswer },
      {
        name: "cache stage, Redis",
        run: repeat(Effect.suspend(() => redis(input110))),
        check: isAnswer,
        baseline: "bentocache, Redis"
      },
      { name: "PersistedCache, Redis", run: question(persistedRedis), check: isAnswer, baseline: "bentocache, Redis" },
      { name: "bentocache, memory + Redis", run: ask("tiered"), check: isAnswer },
      {
        name: "cache stage, memory + Redis",
        run: repeat(Effect.suspend(() => tiered(input110))),
        check: isAnswer,
        baseline: "bentocache, memory + Redis"
      },
      {
        name: "PersistedCache, memory + Redis",
        run: question(persistedTiered),
        check: isAnswer,
        baseline: "bentocache, memory + Redis"
      }
    ]
  }
}

/** How many MiB the heap and what hangs on it grow by when a cache is filled. It is measured once. */
const memoryCase = (name: string, fill: () => Promise<unknown>, goal?: number): Case => {
  let grown: number | undefined = undefined
  return {
    name,
    figure: true,
    ops: 1,
    ...(goal === undefined ? {} : { goal }),
    run: async () => {
      if (grown !== undefined) return grown
      const used = () => {
        globalThis.gc?.()
        globalThis.gc?.()
        const { external, heapUsed } = process.memoryUsage()
        return heapUsed + external
      }
      const before = used()
      const cache = await fill()
      grown = Math.round((used() - before) / 1024 / 1024)
      if (cache === undefined) throw new Error("nothing was filled")
      return grown
    }
  }
}

const memoryGroup = (): Group => {
  const count = 100_000
  const each = async (set: (key: string, text: string) => unknown) => {
    for (let i = 0; i < count; i++) {
      // A string of its own for each, as an answer is.
      await set(`cache:t:${hash("sha256", String(i))}`, JSON.stringify(String(i).padEnd(1000, "x")))
    }
  }
  return {
    name: "memory for 100,000 entries of 1 KB: MiB",
    cases: [
      memoryCase("lru-cache", async () => {
        const lru = new LRUCache<string, string>({ max: count })
        await each((key, text) => lru.set(key, text))
        return lru
      }),
      memoryCase("memory store", async () => {
        const store = await kept(
          Effect.map(CacheStore.CacheStore, (service) => service),
          CacheStore.layerMemory({ maxEntries: count, maxBytes: 2 ** 31 })
        )
        const labels = ["tool:t"]
        await each((key, text) =>
          Effect.runPromise(store.set(key, { text, freshMillis: 3e6, keepMillis: 3e6, labels, mark: undefined }))
        )
        return store
      }),
      memoryCase("bentocache", async () => {
        const bento = new BentoCache({
          default: "memory",
          stores: { memory: bentostore().useL1Layer(memoryDriver({ maxItems: count })) }
        })
        await each((key, value) => bento.set({ key, value, ttl: "1h" }))
        return bento
      }),
      memoryCase("keyv", async () => {
        const keyv = new Keyv()
        await each((key, text) => keyv.set(key, text))
        return keyv
      }),
      memoryCase("cache-manager", async () => {
        const manager = createCache()
        await each((key, text) => manager.set(key, text))
        return manager
      }),
      memoryCase("Effect Cache", async () => {
        const cache = await Effect.runPromise(
          Cache.make<string, string>({ capacity: count, lookup: () => Effect.succeed("") })
        )
        await each((key, text) => Effect.runPromise(Cache.set(cache, key, text)))
        return cache
      })
    ]
  }
}

const flightWorker = join(import.meta.dirname, "../cache/flightWorker.ts")

const twoProcessesGroup = async (): Promise<Group> => {
  const { close, url } = await redisServer()
  let executions: number | undefined = undefined
  return {
    name: "cache stampede of 1,000 over two processes and one Redis: executions",
    close,
    cases: [{
      name: "cache stage",
      figure: true,
      ops: 1,
      goal: 1,
      run: async () => {
        if (executions !== undefined) return executions
        const args = [url, "bench:", "500", "200"]
        const workers = await startWorkers(flightWorker, [args, args])
        workers.begin()
        const worked = await workers.printed<{ readonly runs: number; readonly answers: ReadonlyArray<number> }>()
        workers.stop()
        if (new Set(worked.flatMap((one) => one?.answers)).size !== 1) throw new Error("not one answer for all")
        return executions = worked.reduce((total, one) => total + (one?.runs ?? 0), 0)
      }
    }]
  }
}

export default async (): Promise<ReadonlyArray<Group>> => [
  keyGroup(),
  await hitGroup(),
  await storeGroup(),
  memoryGroup(),
  await stampedeGroup(),
  await twoProcessesGroup(),
  await sqliteGroup(),
  await redisGroup(),
  await sharedGroup()
]
