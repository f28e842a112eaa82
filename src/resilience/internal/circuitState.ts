/**
 * The rules of a circuit: an immutable state, and what admitting a call, its result, and an operator make of it.
 *
 * Nothing here knows of effects or of time: `now` is passed in, in milliseconds of a monotonic clock.
 *
 * @since 0.1.0
 */
import type { Outcome } from "../Classify.ts"
import type { Window } from "./circuitWindow.ts"

/**
 * - `closed`: calls run, and their results are watched. `open`: calls are refused.
 * - `half-open`: a few probes run, everything else is refused.
 * - `forced-open`, `disabled`, `metrics-only`: an operator refuses everything, lets everything pass unwatched, or lets
 *   everything pass and watches it, until the circuit is reset.
 *
 * @category models
 * @since 0.1.0
 */
export type Status = "closed" | "open" | "half-open" | "forced-open" | "disabled" | "metrics-only"

/** @internal What the rules depend on. `openMillis` are the lengths of the first, second, ... opening in a row. */
export interface Rules {
  readonly emptyWindow: Window
  readonly openMillis: ReadonlyArray<number>
  readonly halfOpenMaxRequests: number
  readonly halfOpenSuccesses: number
  readonly probeLeaseMillis: number
}

/** @internal A call that tries a half-open circuit. It has a place among the probes until `until`. */
export interface Probe {
  readonly until: number
}

/**
 * @internal
 *
 * - `generation`: changes with `status`, and with a reset. A result counts only in the generation in which its call was admitted.
 * - `since`: when `status` began. `openFor`: how long the latest opening was to last.
 * - `openings`: how often the circuit has opened in a row.
 * - `probes`, `successes`: of a half-open circuit; the probes are in the order in which their leases end.
 */
export interface CircuitState {
  readonly status: Status
  readonly generation: number
  readonly since: number
  readonly window: Window
  readonly openings: number
  readonly openFor: number
  readonly probes: ReadonlyArray<Probe>
  readonly successes: number
}

const noProbes: ReadonlyArray<Probe> = []

/** @internal */
export const initial = (rules: Rules): CircuitState => ({
  status: "closed",
  generation: 0,
  since: 0,
  window: rules.emptyWindow,
  openings: 0,
  openFor: 0,
  probes: noProbes,
  successes: 0
})

const begin = (rules: Rules, state: CircuitState, status: Status, now: number): CircuitState => ({
  status,
  generation: state.generation + 1,
  since: now,
  window: rules.emptyWindow,
  openings: state.openings,
  openFor: state.openFor,
  probes: noProbes,
  successes: 0
})

// A dependency that flaps is left alone longer each time: a closing forgets the openings before it only once it has
// lasted as long as the latest of them.
const open = (rules: Rules, state: CircuitState, now: number): CircuitState => {
  const isRested = state.status === "closed" && now - state.since >= state.openFor
  const openings = isRested ? 1 : state.openings + 1
  const openFor = rules.openMillis[Math.min(openings, rules.openMillis.length) - 1]!
  return { ...begin(rules, state, "open", now), openings, openFor }
}

const withProbes = (state: CircuitState, probes: ReadonlyArray<Probe>, successes: number): CircuitState => ({
  ...state,
  probes,
  successes
})

const heldAt = (probes: ReadonlyArray<Probe>, now: number): ReadonlyArray<Probe> =>
  probes.length > 0 && probes[0]!.until <= now ? probes.filter((probe) => probe.until > now) : probes

/** @internal How long a call that comes now has to wait, in milliseconds. 0: it is admitted. */
export const waitMillis = (rules: Rules, state: CircuitState, now: number): number => {
  switch (state.status) {
    case "open":
      return Math.max(0, state.since + state.openFor - now)
    case "half-open": {
      if (state.probes.length + state.successes < rules.halfOpenMaxRequests) return 0
      const first = state.probes[0]
      // Without probes the last success would have closed the circuit, so there is a first.
      return first === undefined ? 0 : Math.max(0, first.until - now)
    }
    case "forced-open":
      return rules.openMillis[0]!
    default:
      return 0
  }
}

/** @internal Says whether a call that is admitted now is a probe. */
export const isProbing = (state: CircuitState): boolean => state.status === "open" || state.status === "half-open"

/** @internal Takes a probe in. Only when `isProbing` and `waitMillis` is 0. */
export const admitProbe = (rules: Rules, state: CircuitState, probe: Probe, now: number): CircuitState => {
  const halfOpen = state.status === "half-open" ? state : begin(rules, state, "half-open", now)
  return withProbes(halfOpen, [...heldAt(halfOpen.probes, now), probe], halfOpen.successes)
}

/**
 * @internal The state after a result. It is the same state if nothing changes.
 *
 * A probe that has lost its place still counts while the circuit is half-open: what it found out is as true as ever.
 * One slow probe is enough to open the circuit again where slow calls are watched.
 */
export const settle = (
  rules: Rules,
  state: CircuitState,
  generation: number,
  probe: Probe | undefined,
  outcome: Outcome,
  isSlow: boolean,
  now: number
): CircuitState => {
  if (state.generation !== generation) return state
  switch (state.status) {
    case "closed":
    case "metrics-only": {
      if (outcome === "ignored") return state
      const window = state.window.record(outcome === "failure", isSlow, now)
      if (window === state.window) return state
      const next = { ...state, window }
      return state.status === "closed" && window.trips ? open(rules, next, now) : next
    }
    case "half-open": {
      if (outcome === "failure" || (outcome === "success" && isSlow)) return open(rules, state, now)
      const successes = outcome === "success" ? state.successes + 1 : state.successes
      if (successes >= rules.halfOpenSuccesses) return begin(rules, state, "closed", now)
      return withProbes(state, state.probes.filter((held) => held !== probe), successes)
    }
    default:
      return state
  }
}

/** @internal What an operator asks for. Asking for what is already so changes nothing. */
export const force = (
  rules: Rules,
  state: CircuitState,
  status: "forced-open" | "disabled" | "metrics-only",
  now: number
): CircuitState => state.status === status ? state : begin(rules, state, status, now)

/** @internal Closed, with nothing remembered. */
export const reset = (rules: Rules, state: CircuitState, now: number): CircuitState => ({
  ...begin(rules, state, "closed", now),
  openings: 0,
  openFor: 0
})
