import { NodeRedis } from "@effect/platform-node"
import { Effect, Exit, Layer, Scope } from "effect"
import { ToolCall, ToolMeta } from "effect-toolops"
import { Identity } from "effect-toolops/auth"
import { RateLimit, RateLimitStore, RedisRateLimitStore } from "effect-toolops/limit"
import { Redis } from "effect/persistence"
import { RateLimiterMemory } from "rate-limiter-flexible"
import { createClient } from "redis"
import type { Case, Group, Settings } from "./harness.ts"

const echo = ToolMeta.make({ name: "echo" })
const identityOf = (i: number): Identity.Identity => Identity.make({ principal: `caller-${i}`, tenant: "acme" })

// Tokens that come back so slowly that every bucket stays in use, as the peer's windows do.
const plenty = { limit: 1_000_000_000, window: "100 days" } as const
const hourly = { limit: 1, window: "1 hour" } as const
const one: ReadonlyArray<RateLimit.Limit> = [
  { name: "caller", per: "identity", limit: 100_000, window: "10 days" }
]
const three: ReadonlyArray<RateLimit.Limit> = [
  ...one,
  { name: "tool", per: "tool", ...plenty },
  { name: "all", per: "global", ...plenty }
]

const scope = Effect.runSync(Scope.make())

/** The limit stage around nothing: what a call pays for being limited. */
const stage = async <E>(
  limits: ReadonlyArray<RateLimit.Limit>,
  store: Layer.Layer<RateLimitStore.RateLimitStore, E>
) => {
  const context = await Effect.runPromise(
    Effect.provideService(Layer.build(Layer.provide(RateLimit.layer({ limits }), store)), Scope.Scope, scope)
  )
  const limit = await Effect.runPromise(Effect.provide(RateLimit.RateLimit, context))
  return limit.forTool(echo)
}

const memory = (limits: ReadonlyArray<RateLimit.Limit>, maxKeys = 200_000) =>
  stage(limits, RateLimitStore.layerMemory({ maxKeys }))

const granted = (result: unknown, n: number): void => {
  if (result !== n) throw new Error(`${String(result)} of ${n} calls were granted`)
}
const refused = (result: unknown): void => {
  if (result !== 0) throw new Error("calls were granted")
}

/** Calls of one caller after the other; counts those that pass. */
const calls = (around: Awaited<ReturnType<typeof stage>>, callers: ReadonlyArray<Identity.Identity>) => {
  const call = ToolCall.make({ tool: echo })
  let at = 0
  const next = () => {
    call.record.identity = callers[at++ % callers.length]
    return around(call, Effect.void)
  }
  return (n: number) =>
    Effect.runPromise(Effect.gen(function*() {
      let passed = 0
      for (let i = 0; i < n; i++) {
        yield* next()
        passed++
      }
      return passed
    }))
}

const refusals = (around: Awaited<ReturnType<typeof stage>>, caller: Identity.Identity) => {
  const call = ToolCall.make({ tool: echo })
  call.record.identity = caller
  const next = Effect.match(around(call, Effect.void), { onFailure: () => 0, onSuccess: () => 1 })
  return (n: number) =>
    Effect.runPromise(Effect.gen(function*() {
      let passed = 0
      for (let i = 0; i < n; i++) passed += yield* next
      return passed
    }))
}

const memoryGroup = async (): Promise<Group> => {
  const callers = Array.from({ length: 100_000 }, (_, i) => identityOf(i))
  const keys = callers.map((caller) => `4:acme${caller.principal}`)
  const peer = new RateLimiterMemory({ points: 1_000_000, duration: 3600 })
  const peerEmpty = new RateLimiterMemory({ points: 1, duration: 3600 })
  await peerEmpty.consume(keys[0]!)
  const empty = await memory([{ name: "caller", per: "identity", ...hourly }])
  await calls(empty, callers.slice(0, 1))(1)
  let at = 0
  const consume = async (n: number) => {
    let passed = 0
    for (let i = 0; i < n; i++) {
      await peer.consume(keys[at++ % keys.length]!)
      passed++
    }
    return passed
  }
  const withOne = calls(await memory(one), callers)
  const withThree = calls(await memory(three), callers)
  // Everyone has been seen before anything is measured.
  for (const seen of [consume, withOne, withThree]) await seen(callers.length)
  return {
    name: "limit",
    cases: [
      { name: "rate-limiter-flexible, 100,000 keys", run: consume, check: granted },
      {
        name: "one limit, 100,000 callers",
        run: withOne,
        check: granted,
        baseline: "rate-limiter-flexible, 100,000 keys",
        goal: 0.8
      },
      {
        name: "three limits in one step",
        run: withThree,
        check: granted,
        baseline: "one limit, 100,000 callers",
        goal: 1.5
      },
      {
        name: "rate-limiter-flexible, refusal",
        check: refused,
        run: async (n) => {
          let passed = 0
          for (let i = 0; i < n; i++) {
            try {
              await peerEmpty.consume(keys[0]!)
              passed++
            } catch {
              // A refusal is what is wanted.
            }
          }
          return passed
        }
      },
      {
        name: "refusal",
        run: refusals(empty, callers[0]!),
        check: refused,
        baseline: "rate-limiter-flexible, refusal",
        goal: 1
      }
    ]
  }
}

const bytes = (): number => {
  // Weak things are gone after the second collection.
  globalThis.gc?.()
  globalThis.gc?.()
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return arrayBuffers + heapUsed
}

/** Callers that exist for one call only, so what stays is what the store keeps of them. */
const footprint = (callers: number): Case => {
  const measure = async (): Promise<number> => {
    const around = await memory([{ name: "caller", per: "identity", ...hourly }], callers)
    const call = ToolCall.make({ tool: echo })
    let keys = 0
    const before = bytes()
    await Effect.runPromise(Effect.gen(function*() {
      for (let i = 0; i < callers; i++) {
        const identity = identityOf(i)
        call.record.identity = identity
        keys += "caller|i|i4:acme".length + identity.principal.length
        yield* around(call, Effect.void)
      }
    }))
    call.record.limits = undefined
    return (bytes() - before - keys) / callers
  }
  // Memory does not vary from round to round, and one round of a million takes a while.
  let measured: Promise<number> | undefined
  return {
    name: `bytes per caller beyond the key, ${callers} callers`,
    figure: true,
    goal: 100,
    ops: callers,
    run: () => measured ??= measure()
  }
}

const redisGroup = async (): Promise<Group> => {
  const url = process.env["REDIS_URL"] ?? "redis://127.0.0.1:6379"
  const client = await createClient({ url }).connect()
  const prefix = `bench:limit:${process.pid}:`
  const around = await stage(
    one,
    RedisRateLimitStore.layer({ prefix, commandTimeout: "5 seconds" }).pipe(Layer.provide(NodeRedis.layer({ url })))
  )
  const caller = identityOf(0)
  // The same script with the same arguments, as the client sends it when nothing is around it.
  const sent: Array<ReadonlyArray<string>> = []
  await Effect.runPromise(Effect.provide(
    Effect.flatMap(RateLimitStore.RateLimitStore, (store) =>
      store.consume([
        new RateLimitStore.Take(
          { name: "caller", per: "identity", burst: 1e6, intervalMillis: 100, spanMillis: 1e8, shadow: false },
          new RateLimitStore.BucketKey("caller|i|i4:acmecaller-0"),
          1
        )
      ], 0)),
    RedisRateLimitStore.layer({ prefix, onStoreError: "allow" }).pipe(
      Layer.provide(recording(sent))
    )
  ))
  const [load = [], evaluate = []] = sent
  const command = ["EVALSHA", await client.scriptLoad(load[2] ?? ""), ...evaluate.slice(2)]
  const bare = async (n: number) => {
    let passed = 0
    for (let i = 0; i < n; i++) {
      const [wait] = await client.sendCommand<ReadonlyArray<number>>(command)
      passed += wait === 0 ? 1 : 0
    }
    return passed
  }
  const withOne = calls(around, [caller])
  // A round is too few calls for the compiler: what is measured is a program that has been running for a second.
  for (const warmed of [bare, withOne]) await warmed(5000)
  return {
    name: "limit, Redis",
    close: async () => {
      const left = await client.keys(`${prefix}*`)
      if (left.length > 0) await client.del(left)
      await client.close()
      await Effect.runPromise(Scope.close(scope, Exit.void))
    },
    cases: [
      {
        name: "bare EVALSHA",
        check: granted,
        run: bare
      },
      {
        name: "one limit",
        run: withOne,
        check: granted,
        baseline: "bare EVALSHA",
        goal: 1.15
      }
    ]
  }
}

/** A Redis that writes down what it is sent, knows every script, and answers nothing else. */
const recording = (sent: Array<ReadonlyArray<string>>): Layer.Layer<Redis.Redis> =>
  Layer.succeed(Redis.Redis, {
    send: <A>(...command: ReadonlyArray<string>) => {
      sent.push(command)
      // Only the name of a script is ever waited for.
      return command[0] === "SCRIPT"
        ? Effect.succeed("sha" as A)
        : Effect.fail(new Redis.RedisError({ cause: "recorded" }))
    },
    subscribe: () => Effect.die("not asked for"),
    reserve: Effect.die("not asked for"),
    eval: () => () => Effect.die("not asked for")
  })

export default async (settings: Settings): Promise<ReadonlyArray<Group>> => {
  const kept = footprint(settings.quick ? 100_000 : 1_000_000)
  // Before anything else is in the heap: a busy collector lets go of dead callers later.
  await kept.run(0)
  return [{ name: "limit, memory", cases: [kept] }, await memoryGroup(), await redisGroup()]
}
