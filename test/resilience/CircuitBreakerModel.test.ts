import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Duration, Effect, Exit, type Fiber, Schedule } from "effect"
import { CircuitBreaker, type ResilienceError, ResilienceObserver } from "effect-toolops/resilience"
import * as ManualClock from "../support/manualClock.ts"
import * as Random from "../support/random.ts"
import { type Admitted, CircuitModel, type Config } from "./CircuitModel.ts"

// The breaker runs on a clock that is moved by hand: `TestClock.adjust` yields to the scheduler, and four million steps
// of it would take minutes. What reads the time is the same.

const sequences = 20_000
const steps = 200

type Kind = "success" | "failure" | "ignored" | "defect" | "interruption"
const kinds: ReadonlyArray<Kind> = [
  "success",
  "success",
  "success",
  "failure",
  "failure",
  "ignored",
  "defect",
  "interruption"
]
const outcomeOf = {
  success: "success",
  failure: "failure",
  ignored: "ignored",
  defect: "failure",
  interruption: "ignored"
} as const

const effects: { readonly [K in Kind]: Effect.Effect<string, string> } = {
  success: Effect.succeed("ok"),
  failure: Effect.fail("failure"),
  ignored: Effect.fail("ignored"),
  defect: Effect.die("defect"),
  interruption: Effect.interrupt
}

const classify = (exit: Exit.Exit<unknown, unknown>) =>
  Exit.isSuccess(exit)
    ? "success"
    : exit.cause.reasons.some((r) => r._tag === "Fail" && r.error === "ignored")
    ? "ignored"
    : "failure"

const randomConfig = (random: Random.Random): Config => {
  const type = random.below(3)
  const size = 1 + random.below(70)
  const openMillis = random.below(3) === 0 ? [10, 20, 40] : [10 + random.below(40)]
  const probes = 1 + random.below(4)
  return {
    maxFailures: type === 0 ? 1 + random.below(5) : undefined,
    count: type === 1 ? { size } : undefined,
    time: type === 2 ? { millis: 20 + random.below(100), buckets: 1 + random.below(10) } : undefined,
    minimumCalls: 1 + random.below(Math.min(size, 8)),
    failureRate: random.pick([0.2, 0.5, 0.75, 1]),
    slow: type !== 0 && random.below(2) === 0
      ? { millis: 1 + random.below(30), rate: random.pick([0.3, 0.6, 1]) }
      : undefined,
    openMillis,
    probes,
    successes: 1 + random.below(probes),
    lease: 5 + random.below(60)
  }
}

const toOptions = (config: Config): CircuitBreaker.Options => {
  const rates = {
    minimumCalls: config.minimumCalls,
    failureRate: config.failureRate,
    slowCall: config.slow === undefined ? undefined : { duration: config.slow.millis, rate: config.slow.rate }
  }
  return {
    maxFailures: config.maxFailures,
    window: config.count !== undefined
      ? { type: "count", size: config.count.size, ...rates }
      : config.time !== undefined
      ? { type: "time", duration: config.time.millis, buckets: config.time.buckets, ...rates }
      : undefined,
    resetTimeout: config.openMillis.length === 1
      ? config.openMillis[0]!
      : Schedule.exponential(10).pipe(Schedule.upTo({ times: 3 })),
    halfOpenMaxRequests: config.probes,
    halfOpenSuccesses: config.successes,
    probeLease: config.lease,
    classify
  }
}

interface Pending {
  readonly fiber: Fiber.Fiber<string, string | ResilienceError.ResilienceError>
  readonly settle: (effect: Effect.Effect<string, string>) => void
  readonly call: Admitted
}

/** Runs one sequence. Returns the statuses that were seen, so that the test can tell that it tested something. */
const runSequence = (seed: number, visited: Set<string>): void => {
  const random = Random.make(seed)
  const clock = ManualClock.make()
  const transitions: Array<string> = []
  const context = Context.make(Clock.Clock, clock).pipe(
    Context.add(ResilienceObserver.CurrentResilienceObserver, {
      onTransition: ({ from, to }) => transitions.push(`${from} -> ${to}`)
    })
  )
  const runFork = Effect.runForkWith(context)
  const runSync = Effect.runSyncWith(context)
  const config = randomConfig(random)
  const breaker = runSync(CircuitBreaker.make(toOptions(config)))
  const model = new CircuitModel(config)
  const pending: Array<Pending> = []
  let now = 0
  let ran = 0
  let step = 0

  const expect = (what: string, actual: unknown, expected: unknown): void => {
    if (actual !== expected) assert.fail(`seed ${seed}, step ${step}: ${what} is ${actual}, should be ${expected}`)
  }

  const start = (work: Effect.Effect<string, string>): readonly [Pending["fiber"], Admitted | undefined] => {
    const admitted = model.call(now)
    ran = 0
    const fiber = runFork(breaker.execute(Effect.suspend(() => {
      ran += 1
      return work
    })))
    expect("the number of executions", ran, typeof admitted === "number" ? 0 : 1)
    if (typeof admitted !== "number") return [fiber, admitted]
    const exit = fiber.pollUnsafe()
    const reason = exit?._tag === "Failure" ? exit.cause.reasons[0] : undefined
    const error = reason?._tag === "Fail" ? reason.error : undefined
    if (typeof error !== "object" || error.reason._tag !== "CircuitOpen") {
      return assert.fail(`seed ${seed}: not refused`)
    }
    expect("retryAfter", Duration.toMillis(error.reason.retryAfter), admitted)
    return [fiber, undefined]
  }

  const act = (): void => {
    const dice = random.below(100)
    if (dice < 35) {
      const kind = random.pick(kinds)
      const [, admitted] = start(effects[kind])
      if (admitted !== undefined) model.result(admitted, outcomeOf[kind], now)
    } else if (dice < 55 && pending.length < 8) {
      let settle: Pending["settle"] = () => {}
      const [fiber, call] = start(Effect.callback((resume) => {
        settle = resume
      }))
      if (call !== undefined) pending.push({ fiber, call, settle })
    } else if (dice < 75 && pending.length > 0) {
      const { call, fiber, settle } = pending.splice(random.below(pending.length), 1)[0]!
      const kind = random.pick(kinds)
      if (kind === "interruption") fiber.interruptUnsafe()
      else settle(effects[kind])
      model.result(call, outcomeOf[kind], now)
    } else if (dice < 95) {
      const millis = random.pick([1, 3, 10, 20, config.lease, config.openMillis.at(-1)!])
      now += millis
      clock.advance(millis)
      // The wall clock jumps about, and nobody may care.
      clock.stepWall(random.pick([0, 0, 3_600_000, -3_600_000, 2_592_000_000, -2_592_000_000]))
    } else {
      const what = random.below(5)
      if (what === 0) {
        runSync(breaker.forceOpen)
        model.force("forced-open", now)
      } else if (what === 1) {
        runSync(breaker.disable)
        model.force("disabled", now)
      } else if (what === 2) {
        runSync(breaker.metricsOnly)
        model.force("metrics-only", now)
      } else {
        runSync(breaker.reset)
        model.reset(now)
      }
    }
  }

  const compare = (snapshot: CircuitBreaker.Snapshot): void => {
    const counts = model.counts(now)
    expect("the status", snapshot.status, model.status)
    expect("the generation", snapshot.generation, model.generation)
    expect("retryAfter", Duration.toMillis(snapshot.retryAfter), model.wait(now))
    expect("the number of openings", snapshot.openings, model.openings)
    expect("the number of successes", snapshot.successes, model.successes)
    expect("the number of calls", snapshot.calls, counts.calls)
    expect("the number of failures", snapshot.failures, counts.failures)
    expect("the number of slow calls", snapshot.slow, counts.slow)
    if (model.status === "half-open") expect("the number of probes", snapshot.probes, model.probes.length)
    step += 1
  }

  // One fiber asks for all snapshots: a new one for each would take most of the time.
  runSync(Effect.whileLoop({
    while: () => step < steps,
    body: () => {
      act()
      return breaker.snapshot
    },
    step: compare
  }))
  expect("the transitions", transitions.join(), model.transitions.join())
  for (const transition of transitions) visited.add(transition)
}

describe("CircuitBreaker against its model", () => {
  it("is equal at each of 200 steps of 20,000 random sequences", { timeout: 240_000 }, () => {
    const visited = new Set<string>()
    for (let seed = 1; seed <= sequences; seed++) runSequence(seed, visited)
    for (const transition of ["closed -> open", "open -> half-open", "half-open -> closed", "half-open -> open"]) {
      assert.isTrue(visited.has(transition), `no sequence went ${transition}`)
    }
  })
})
