/**
 * Interrupts a fiber at every position it can be interrupted at, under schedulers that let it run for few operations at a
 * time. This finds what is acquired between two steps of a fiber and never given back.
 */
import { Context, Effect, type Fiber, Scheduler } from "effect"

/**
 * - `between`: the interruption comes from another fiber, after so many turns of the scheduler.
 * - `yielded`: the fiber yields before operation number so and so, and is interrupted while it waits for its turn.
 * - `running`: the fiber is interrupted by something that it runs itself, at operation number so and so.
 */
export type Mode = "between" | "yielded" | "running"

export interface Position {
  readonly mode: Mode
  readonly maxOps: number
  readonly at: number
}

/** Every combination of modes, operations before a yield (3 to 64) and 64 positions. */
export const positions: ReadonlyArray<Position> = (["between", "yielded", "running"] as const).flatMap((mode) =>
  Array.from({ length: 62 }, (_, i) => i + 3).flatMap((maxOps) =>
    Array.from({ length: 64 }, (_, at) => ({ mode, maxOps, at }))
  )
)

/** A scheduler that is turned by hand and that interrupts the fiber given to `aim` at the position. */
export class SweepScheduler extends Scheduler.MixedScheduler {
  readonly position: Position
  private readonly tasks: Array<() => void>
  private target: Fiber.Fiber<unknown, unknown> | undefined = undefined
  private operations = 0
  private isDue = false
  private turns = 0
  didInterrupt = false

  constructor(position: Position) {
    const tasks: Array<() => void> = []
    super("sync", (task) => {
      tasks.push(task)
      return () => {
        const index = tasks.indexOf(task)
        if (index >= 0) tasks.splice(index, 1)
      }
    })
    this.position = position
    this.tasks = tasks
  }

  /** The context to run fibers with. */
  get context(): Context.Context<never> {
    return Context.make(Scheduler.Scheduler, this as Scheduler.Scheduler).pipe(
      Context.add(Scheduler.MaxOpsBeforeYield, this.position.maxOps)
    )
  }

  override shouldYield(fiber: Fiber.Fiber<unknown, unknown>): boolean {
    if (fiber !== this.target || this.didInterrupt) return super.shouldYield(fiber)
    if (this.operations++ === this.position.at) {
      if (this.position.mode === "running") {
        this.didInterrupt = true
        fiber.interruptUnsafe()
      } else if (this.position.mode === "yielded") {
        this.isDue = true
        return true
      }
    }
    return super.shouldYield(fiber)
  }

  /** Starts the fiber that will be interrupted. */
  aim<A, E>(effect: Effect.Effect<A, E>): Fiber.Fiber<A, E> {
    // The target has to be known before its first operation.
    const fiber = Effect.runForkWith(this.context)(Effect.withFiber((fiber) => {
      this.target = fiber
      return effect
    }))
    this.interruptIfDue()
    return fiber
  }

  /** Runs everything that is ready, until nothing is. */
  drain(): void {
    for (let task = this.tasks.shift(); task !== undefined; task = this.tasks.shift()) {
      task()
      this.turns += 1
      this.interruptIfDue()
    }
  }

  private interruptIfDue(): void {
    const { at, mode } = this.position
    if (this.didInterrupt || this.target === undefined) return
    if (this.isDue || (mode === "between" && this.turns >= at)) {
      this.didInterrupt = true
      this.target.interruptUnsafe()
    }
  }
}
