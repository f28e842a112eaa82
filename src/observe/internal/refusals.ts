import type { Outcome } from "../../CallRecord.ts"
import type { ToolMeta } from "../../ToolMeta.ts"

/** How often the refusals of one tool were logged lately, each kind on its own. */
export class Refusals {
  readonly most: number
  readonly windows = new Map<Outcome, { since: number; logged: number; suppressed: number }>()

  /** `most`: lines per second. */
  constructor(most: number) {
    this.most = most
  }

  /** How many lines were left out before this one, or -1 when this one is to be left out too. */
  suppressed(outcome: Outcome, nowMillis: number): number {
    let window = this.windows.get(outcome)
    if (window === undefined) this.windows.set(outcome, window = { since: nowMillis, logged: 0, suppressed: 0 })
    if (nowMillis - window.since >= 1000) {
      window.since = nowMillis
      window.logged = 0
    }
    if (window.logged >= this.most) {
      window.suppressed += 1
      return -1
    }
    window.logged += 1
    const left = window.suppressed
    window.suppressed = 0
    return left
  }
}

/** Hands out refusals per tool, whoever describes it how often; from the `maxTools`th tool on all share one. */
export const makeRefusals = (most: number, maxTools: number): (tool: ToolMeta) => Refusals => {
  const made = new Map<string, Refusals>()
  let rest: Refusals | undefined
  return (tool) => {
    let found = made.get(tool.id)
    if (found === undefined) {
      if (made.size >= maxTools) return rest ??= new Refusals(most)
      made.set(tool.id, found = new Refusals(most))
    }
    return found
  }
}
