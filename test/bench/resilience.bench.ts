import {
  bulkhead as cockatielBulkhead,
  circuitBreaker as cockatielBreaker,
  ConsecutiveBreaker,
  ConstantBackoff,
  ExponentialBackoff,
  handleAll,
  retry as cockatielRetry,
  timeout as cockatielTimeout,
  TimeoutStrategy,
  wrap
} from "cockatiel"
import { Clock, Context, type Duration, Effect, Exit, Scope, Semaphore } from "effect"
import { Bulkhead, CircuitBreaker, Executor, RateLimiter, Retry, Timeout } from "effect-toolops/resilience"
import * as EffectCircuitBreaker from "effect/persistence/CircuitBreaker"
import CircuitBreakerOfOpossum from "opossum"
import pLimit from "p-limit"
import pRetry from "p-retry"
import pTimeout from "p-timeout"
import type { Case, Group } from "./harness.ts"

const answer = 42
const handler = () => Promise.resolve(answer)
const handlerEffect = Effect.promise(handler)

const answered: NonNullable<Case["check"]> = (result) => {
  if (result !== answer) throw new Error(`the call was not answered: ${String(result)}`)
}

/** Calls a promise function `n` times, one after the other. */
const promised = (call: () => Promise<unknown>) => async (n: number) => {
  let last: unknown = undefined
  for (let i = 0; i < n; i++) last = await call()
  return last
}

/** Runs the effect that `call` makes `n` times, one after the other, in one fiber. */
const inFiber = <E>(call: () => Effect.Effect<unknown, E>) => (n: number) =>
  Effect.runPromise(Effect.suspend(() => {
    let left = n
    let last: unknown = undefined
    return Effect.map(
      Effect.whileLoop({
        while: () => left-- > 0,
        body: call,
        step: (result) => {
          last = result
        }
      }),
      () => last
    )
  }))

const throughRunPromise = <E>(call: () => Effect.Effect<unknown, E>) => promised(() => Effect.runPromise(call()))

/** `lanes` callers at once, each making its share of `n` calls one after the other. */
const inFlight = (lanes: number, call: () => Promise<unknown>) => async (n: number) => {
  const lane = promised(call)
  const results = await Promise.all(Array.from({ length: lanes }, () => lane(Math.ceil(n / lanes))))
  return results[0]
}

const inFlightFibers = <E>(lanes: number, call: () => Effect.Effect<unknown, E>) => async (n: number) => {
  const lane = inFiber(call)
  const results = await Promise.all(Array.from({ length: lanes }, () => lane(Math.ceil(n / lanes))))
  return results[0]
}

type Call = <A, E>(effect: Effect.Effect<A, E>) => Effect.Effect<A, unknown>

/** The four parts as an executor, which is also how the stage runs them. */
const ours = (concurrent: number): Call => {
  const executor = Effect.runSync(Executor.make({
    bulkhead: { maxConcurrent: concurrent },
    circuitBreaker: {},
    retry: {},
    timeout: {}
  }))
  return (effect) => executor.execute(effect)
}

/** The four parts put around each other by hand. */
const byHand = (concurrent: number): Call => {
  const bulkhead = Effect.runSync(Bulkhead.make({ maxConcurrent: concurrent }))
  const breaker = Effect.runSync(CircuitBreaker.make())
  const retry = Effect.runSync(Retry.make())
  const timeout = Effect.runSync(Timeout.make())
  return (effect) => bulkhead.execute(breaker.execute(retry.execute(timeout.execute(effect))))
}

const effectBreaker = (openDuration: Duration.Input, failures: number) =>
  EffectCircuitBreaker.make({ tripPolicy: EffectCircuitBreaker.consecutive(failures), openDuration }).pipe(
    Effect.provide(EffectCircuitBreaker.layerStoreMemory()),
    Scope.provide(Scope.makeUnsafe()),
    Effect.runSync
  )

/** The same of Effect's own parts. */
const ofEffect = (concurrent: number): Call => {
  const semaphore = Semaphore.makeUnsafe(concurrent)
  const breaker = effectBreaker("30 seconds", 5)
  const classified = {
    key: "bench",
    classify: (exit: Exit.Exit<unknown, unknown>) =>
      Exit.isSuccess(exit) ? EffectCircuitBreaker.success : EffectCircuitBreaker.failure()
  }
  return (effect) =>
    semaphore.withPermit(breaker.execute(Effect.retry(Effect.timeout(effect, "30 seconds"), { times: 2 }), classified))
}

const ofCockatiel = (strategy: TimeoutStrategy, concurrent: number) => {
  const policy = wrap(
    cockatielBulkhead(concurrent),
    cockatielBreaker(handleAll, { halfOpenAfter: 30_000, breaker: new ConsecutiveBreaker(5) }),
    cockatielRetry(handleAll, { maxAttempts: 2, backoff: new ExponentialBackoff() }),
    cockatielTimeout(30_000, strategy)
  )
  return <A>(call: () => Promise<A>) => policy.execute(call)
}

const ofOpossum = <A>(call: () => Promise<A>, capacity: number) => {
  const breaker = new CircuitBreakerOfOpossum(call, {
    timeout: 30_000,
    capacity,
    volumeThreshold: 5,
    resetTimeout: 30_000
  })
  return { breaker, call: () => breaker.fire() }
}

const ofP = (concurrent: number) => {
  const limit = pLimit(concurrent)
  return <A>(call: () => Promise<A>) =>
    limit(() => pRetry(() => pTimeout(call(), { milliseconds: 30_000 }), { retries: 2 }))
}

const happyPath = (): Group => {
  const aggressive = ofCockatiel(TimeoutStrategy.Aggressive, 10)
  const cooperative = ofCockatiel(TimeoutStrategy.Cooperative, 10)
  const opossum = ofOpossum(handler, 10)
  const p = ofP(10)
  const effects = ofEffect(10)
  const guarded = ours(10)
  const call = () => guarded(handlerEffect)
  const hand = byHand(10)
  return {
    name: "resilience: happy path of bulkhead + breaker + retry + timeout",
    cases: [
      { name: "bare handler", run: promised(handler), check: answered },
      { name: "bare handler in a fiber", run: inFiber(() => handlerEffect), check: answered },
      { name: "bare handler through runPromise", run: throughRunPromise(() => handlerEffect), check: answered },
      { name: "cockatiel, cooperative", run: promised(() => cooperative(handler)), check: answered },
      { name: "cockatiel, aggressive", run: promised(() => aggressive(handler)), check: answered },
      { name: "opossum (no retry)", run: promised(opossum.call), check: answered },
      { name: "p-limit(p-retry(p-timeout))", run: promised(() => p(handler)), check: answered },
      { name: "Effect's own parts in a fiber", run: inFiber(() => effects(handlerEffect)), check: answered },
      {
        name: "Effect's own parts through runPromise",
        run: throughRunPromise(() => effects(handlerEffect)),
        check: answered
      },
      {
        name: "effect-toolops in a fiber, against cockatiel",
        run: inFiber(call),
        check: answered,
        baseline: "cockatiel, cooperative",
        goal: 0.25,
        maxBytes: 3072
      },
      {
        name: "effect-toolops in a fiber, against opossum",
        run: inFiber(call),
        check: answered,
        baseline: "opossum (no retry)",
        goal: 2.5
      },
      {
        name: "effect-toolops in a fiber, against the bare handler",
        run: inFiber(call),
        check: answered,
        baseline: "bare handler in a fiber"
      },
      {
        name: "effect-toolops's parts put together by hand",
        run: inFiber(() => hand(handlerEffect)),
        check: answered,
        baseline: "cockatiel, cooperative"
      },
      {
        name: "effect-toolops through runPromise",
        run: throughRunPromise(call),
        check: answered,
        baseline: "cockatiel, cooperative"
      },
      {
        name: "effect-toolops around a synchronous handler",
        run: inFiber(() => guarded(Effect.succeed(answer))),
        check: answered,
        baseline: "cockatiel, cooperative"
      }
    ],
    close: () => opossum.breaker.shutdown()
  }
}

const refusal = async (): Promise<Group> => {
  const refused: NonNullable<Case["check"]> = (result) => {
    if (result !== "refused") throw new Error(`the call was not refused: ${String(result)}`)
  }
  const say = () => "refused"
  const policy = cockatielBreaker(handleAll, { halfOpenAfter: 3_600_000, breaker: new ConsecutiveBreaker(1) })
  await policy.execute(() => Promise.reject(new Error("down"))).catch(say)
  const full = cockatielBulkhead(1)
  void full.execute(() => new Promise(() => {}))
  const opossum = new CircuitBreakerOfOpossum(handler, { resetTimeout: 3_600_000 })
  opossum.open()
  const throughBreaker = effectBreaker("1 hour", 1).execute<number, string, never>({ key: "bench" })
  await Effect.runPromise(Effect.ignore(throughBreaker(Effect.fail("down"))))
  const breaker = Effect.runSync(CircuitBreaker.make())
  Effect.runSync(breaker.forceOpen)
  const bulkhead = Effect.runSync(Bulkhead.make({ maxConcurrent: 1 }))
  Effect.runFork(bulkhead.execute(Effect.never))
  const limiter = Effect.runSync(RateLimiter.make({ rate: 1e-9, burst: 1 }))
  Effect.runSync(limiter.tokens(1))
  const caught = <A, E>(effect: Effect.Effect<A, E>) => Effect.catch(effect, () => Effect.succeed("refused"))
  const refusals = {
    "open circuit": () => caught(breaker.execute(handlerEffect)),
    "full bulkhead": () => caught(bulkhead.execute(handlerEffect)),
    "rate limit": () => caught(limiter.execute(handlerEffect))
  }
  return {
    name: "resilience: refusal",
    cases: [
      { name: "cockatiel, open circuit", run: promised(() => policy.execute(handler).catch(say)), check: refused },
      { name: "cockatiel, full bulkhead", run: promised(() => full.execute(handler).catch(say)), check: refused },
      { name: "opossum, open circuit", run: promised(() => opossum.fire().catch(say)), check: refused },
      {
        name: "Effect's own breaker, open, in a fiber",
        run: inFiber(() => caught(throughBreaker(handlerEffect))),
        check: refused
      },
      ...Object.entries(refusals).map(([name, call]): Case => ({
        name: `effect-toolops, ${name}, in a fiber`,
        run: inFiber(call),
        check: refused,
        baseline: "cockatiel, open circuit",
        goal: 0.1
      })),
      {
        name: "effect-toolops, open circuit, through runPromise",
        run: throughRunPromise(refusals["open circuit"]),
        check: refused,
        baseline: "cockatiel, open circuit"
      }
    ],
    close: () => opossum.shutdown()
  }
}

const hostClock = Context.get(Context.empty(), Clock.Clock)

/**
 * A clock on which every wait is a turn of the scheduler, as one of no time is for `Effect.retry`. Ours is never that
 * short, and what is measured here is the work between the waits.
 */
const waitless: Clock.Clock = Object.assign(Object.create(hostClock) as Clock.Clock, { sleep: () => Effect.yieldNow })

const failingPath = (): Group => {
  const failures = () => {
    let attempts = 0
    return () => ++attempts % 3 === 0 ? Promise.resolve(answer) : Promise.reject(failure)
  }
  const failure = new Error("not yet")
  const failingEffect = Effect.tryPromise({ try: failures(), catch: () => failure })
  const cockatiel = cockatielRetry(handleAll, { maxAttempts: 2, backoff: new ConstantBackoff(0) })
  const retry = Effect.runSync(Retry.make({ budget: false }))
  const budgeted = Effect.runSync(Retry.make({ budget: { share: 1, minPerSecond: 1e9 } }))
  const cockatielHandler = failures()
  const pHandler = failures()
  return {
    name: "resilience: the third attempt succeeds, waits left out",
    cases: [
      { name: "cockatiel", run: promised(() => cockatiel.execute(cockatielHandler)), check: answered },
      {
        name: "p-retry",
        run: promised(() => pRetry(pHandler, { retries: 2, minTimeout: 0 })),
        check: answered
      },
      {
        name: "Effect.retry in a fiber",
        run: inFiber(() => Effect.retry(failingEffect, { times: 2 })),
        check: answered
      },
      {
        name: "effect-toolops in a fiber",
        run: inFiber(() => Effect.provideService(retry.execute(failingEffect), Clock.Clock, waitless)),
        check: answered,
        baseline: "Effect.retry in a fiber"
      },
      {
        name: "effect-toolops with a budget in a fiber",
        run: inFiber(() => Effect.provideService(budgeted.execute(failingEffect), Clock.Clock, waitless)),
        check: answered,
        baseline: "Effect.retry in a fiber"
      }
    ]
  }
}

const manyInFlight = (): Group => {
  const lanes = 1000
  const slow = () => new Promise<number>((resolve) => setTimeout(resolve, 1, answer))
  const slowEffect = Effect.promise(slow)
  const aggressive = ofCockatiel(TimeoutStrategy.Aggressive, lanes)
  const opossum = ofOpossum(slow, lanes)
  const p = ofP(lanes)
  const effects = ofEffect(lanes)
  const guarded = ours(lanes)
  const ops = 20 * lanes
  return {
    name: "resilience: 1,000 in flight on a 1 ms timer",
    cases: [
      { name: "bare handler", run: inFlight(lanes, slow), check: answered, ops },
      { name: "bare handler in fibers", run: inFlightFibers(lanes, () => slowEffect), check: answered, ops },
      {
        name: "cockatiel, aggressive",
        run: inFlight(lanes, () => aggressive(slow)),
        check: answered,
        baseline: "bare handler",
        ops
      },
      { name: "opossum", run: inFlight(lanes, opossum.call), check: answered, baseline: "bare handler", ops },
      {
        name: "p-limit(p-retry(p-timeout))",
        run: inFlight(lanes, () => p(slow)),
        check: answered,
        baseline: "bare handler",
        ops
      },
      {
        name: "Effect's own parts",
        run: inFlightFibers(lanes, () => effects(slowEffect)),
        check: answered,
        baseline: "bare handler",
        ops
      },
      {
        // The goal is 0.35 of the bare handler's throughput, so its time over 0.35.
        name: "effect-toolops",
        run: inFlightFibers(lanes, () => guarded(slowEffect)),
        check: answered,
        baseline: "bare handler",
        goal: 1 / 0.35,
        ops
      }
    ],
    close: () => opossum.breaker.shutdown()
  }
}

const queue = (): Group => {
  const concurrent = 10
  const limit = pLimit(concurrent)
  const bulkhead = Effect.runSync(Bulkhead.make({ maxConcurrent: concurrent, maxQueue: 20_000 }))
  const semaphore = Semaphore.makeUnsafe(concurrent)
  const fiberEach = (waiting: number, call: Effect.Effect<unknown, unknown>) => async () => {
    const start = process.hrtime.bigint()
    await Promise.all(Array.from({ length: waiting }, () => Effect.runPromise(call)))
    return Number(process.hrtime.bigint() - start) / waiting
  }
  const promiseEach = (waiting: number, call: () => Promise<unknown>) => async () => {
    const start = process.hrtime.bigint()
    await Promise.all(Array.from({ length: waiting }, call))
    return Number(process.hrtime.bigint() - start) / waiting
  }
  const pCall = () => limit(handler)
  const ourCall = bulkhead.execute(handlerEffect)
  // As many calls on both sides, so that both pay for the collector alike.
  const ratio = (few: () => Promise<number>, many: () => Promise<number>) => async () => {
    let sum = 0
    for (let i = 0; i < 20; i++) sum += await few()
    return (await many()) / (sum / 20)
  }
  const each = (waiting: number): ReadonlyArray<Case> => [
    { name: `p-limit, ${waiting} (ns a call)`, run: promiseEach(waiting, pCall), figure: true, ops: 1 },
    {
      name: `Effect's Semaphore, ${waiting} (ns a call)`,
      run: fiberEach(Math.min(waiting, 2000), semaphore.withPermit(handlerEffect)),
      figure: true,
      ops: 1
    },
    {
      name: `effect-toolops, ${waiting} (ns a call)`,
      run: fiberEach(waiting, ourCall),
      baseline: `p-limit, ${waiting} (ns a call)`,
      goal: 4,
      figure: true,
      ops: 1
    }
  ]
  return {
    name: "resilience: bulkhead with a queue",
    cases: [
      ...each(1000),
      ...each(20_000),
      {
        name: "p-limit, cost at 20,000 over cost at 1,000",
        run: ratio(promiseEach(1000, pCall), promiseEach(20_000, pCall)),
        figure: true,
        ops: 1
      },
      {
        name: "fibers that only wait, cost at 20,000 over cost at 1,000",
        run: ratio(fiberEach(1000, Effect.yieldNow), fiberEach(20_000, Effect.yieldNow)),
        figure: true,
        ops: 1
      },
      {
        name: "effect-toolops, cost at 20,000 over cost at 1,000",
        run: ratio(fiberEach(1000, ourCall), fiberEach(20_000, ourCall)),
        goal: 1.5,
        figure: true,
        ops: 1
      }
    ]
  }
}

const parked = (): Group => {
  const calls = 5000
  // Bytes of heap that one call holds while its handler has not answered.
  const heapOf = (start: (handler: () => Promise<number>) => unknown) => async () => {
    let open: (value: number) => void = () => {}
    const gate = new Promise<number>((resolve) => {
      open = resolve
    })
    const wait = () => gate.then((value) => value)
    const settled = (): number => {
      globalThis.gc?.()
      globalThis.gc?.()
      return process.memoryUsage().heapUsed
    }
    const running: Array<unknown> = Array.from({ length: calls })
    const before = settled()
    for (let i = 0; i < calls; i++) running[i] = start(wait)
    await new Promise((resolve) => setTimeout(resolve, 5))
    const bytes = (settled() - before) / calls
    open(answer)
    await Promise.all(running.map((call) => Effect.isEffect(call) ? undefined : call))
    await new Promise((resolve) => setTimeout(resolve, 5))
    return bytes
  }
  const cooperative = ofCockatiel(TimeoutStrategy.Cooperative, calls)
  const p = ofP(calls)
  const effects = ofEffect(calls)
  const guarded = ours(calls)
  const figure = { figure: true, ops: 1 } as const
  return {
    name: "resilience: heap of a parked call (bytes)",
    cases: [
      { name: "bare handler", run: heapOf((wait) => wait()), ...figure },
      { name: "bare handler in a fiber", run: heapOf((wait) => Effect.runFork(Effect.promise(wait))), ...figure },
      { name: "cockatiel, cooperative", run: heapOf((wait) => cooperative(wait)), ...figure },
      { name: "p-limit(p-retry(p-timeout))", run: heapOf((wait) => p(wait)), ...figure },
      { name: "Effect's own parts", run: heapOf((wait) => Effect.runFork(effects(Effect.promise(wait)))), ...figure },
      {
        name: "effect-toolops",
        run: heapOf((wait) => Effect.runFork(guarded(Effect.promise(wait)))),
        goal: 3072,
        ...figure
      }
    ]
  }
}

export default async (): Promise<ReadonlyArray<Group>> => [
  happyPath(),
  await refusal(),
  failingPath(),
  manyInFlight(),
  queue(),
  parked()
]
