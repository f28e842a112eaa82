import * as Effect from "effect/Effect"
import type * as Redis from "effect/persistence/Redis"
import type * as Scope from "effect/Scope"
import type { AuditLog } from "../../auth/AuditLog.ts"
import type { Jwks } from "../../auth/Jwks.ts"
import type { Store } from "../../cache/CacheStore.ts"
import { selfCheck } from "../../internal/selfCheck.ts"
import type { Bulkhead } from "../../resilience/Bulkhead.ts"
import type { CircuitBreaker, Snapshot } from "../../resilience/CircuitBreaker.ts"
import type { ToolGuards } from "../../resilience/ToolGuards.ts"
import type { CheckAnswer, HealthStatus } from "../HealthCheck.ts"

// What each part of the library says of itself to a health registry. A part calls its function where it is made; without a
// registry that is one look into a context. Types only are imported from the parts, so none of them loads another.

type Registered = Effect.Effect<void, never, Scope.Scope>

const whenever = (isBad: boolean): HealthStatus => isBad ? "degraded" : "healthy"

/** Names in an answer, few enough that it stays small whatever there is. */
const listed = (names: ReadonlyArray<string>): string =>
  names.length > 10 ? `${names.slice(0, 10).join(", ")}, ...` : names.join(", ")

const isOpen = (circuit: Pick<Snapshot, "status">): boolean =>
  circuit.status === "open" || circuit.status === "forced-open"

const circuitsAnswer = (circuits: ReadonlyArray<Pick<Snapshot, "name" | "status">>): CheckAnswer => {
  const open = circuits.filter(isOpen).map((circuit) => circuit.name)
  return {
    status: whenever(open.length > 0),
    details: { circuits: circuits.length, open: open.length, openNames: listed(open) }
  }
}

/** A bulkhead is saturated when it refused somebody since it was looked at last, or would refuse the next caller. */
const saturation = () => {
  const seen = new Map<string, number>()
  return (
    bulkheads: ReadonlyArray<{ readonly name: string; readonly rejected: number; readonly isFull: boolean }>
  ): CheckAnswer => {
    const saturated = bulkheads.filter(({ isFull, name, rejected }) => isFull || rejected > (seen.get(name) ?? 0))
    // Those that are gone are forgotten, so this holds no more than there is.
    seen.clear()
    for (const { name, rejected } of bulkheads) seen.set(name, rejected)
    return {
      status: whenever(saturated.length > 0),
      details: {
        bulkheads: bulkheads.length,
        saturated: saturated.length,
        saturatedNames: listed(saturated.map(({ name }) => name))
      }
    }
  }
}

/** The circuits and bulkheads of all tools. An open circuit or a saturated bulkhead degrades. */
export const guardsCheck = (
  guards: Pick<ToolGuards["Service"], "snapshots">,
  isFull: (key: string) => boolean
): Registered => {
  const judge = saturation()
  const bulkheads = Effect.map(
    guards.snapshots,
    (all) =>
      judge(
        all.flatMap(({ bulkhead, key }) =>
          bulkhead === undefined ? [] : [{ name: key, rejected: bulkhead.rejected, isFull: isFull(key) }]
        )
      )
  )
  const circuits = Effect.map(
    guards.snapshots,
    (all) =>
      circuitsAnswer(
        all.flatMap(({ circuitBreaker, key }) =>
          circuitBreaker === undefined ? [] : [{ name: key, status: circuitBreaker.status }]
        )
      )
  )
  return Effect.andThen(selfCheck("circuits", circuits), selfCheck("bulkheads", bulkheads))
}

/** Circuits by key. */
export const breakersCheck = (snapshots: Effect.Effect<ReadonlyArray<Snapshot>>): Registered =>
  selfCheck("breakers", Effect.map(snapshots, circuitsAnswer))

/** One circuit. */
export const breakerCheck = (breaker: CircuitBreaker["Service"]): Registered =>
  selfCheck("breaker", Effect.map(breaker.snapshot, (circuit) => circuitsAnswer([circuit])))

/** One bulkhead. */
export const bulkheadCheck = (bulkhead: Bulkhead["Service"] & { readonly isFull: () => boolean }): Registered => {
  const judge = saturation()
  const { name } = bulkhead
  return selfCheck(
    "bulkhead",
    Effect.map(bulkhead.snapshot, ({ rejected }) => judge([{ name, rejected, isFull: bulkhead.isFull() }]))
  )
}

/** Reads an entry that is not there: whatever the store is made of has to answer. */
export const cacheStoreCheck = (store: Store): Registered =>
  selfCheck(
    "cache",
    Effect.map(
      Effect.suspend(() => store.get("cache:toolops.health:0")),
      (): CheckAnswer => ({ status: "healthy", details: { store: store.name } })
    )
  )

/** Whether Redis answers. */
export const redisCheck = (kind: string, redis: Redis.Redis["Service"]): Registered =>
  selfCheck(kind, Effect.map(Effect.suspend(() => redis.send("PING")), (answer) => answer === "PONG"))

/** A key set that is old or cannot be fetched degrades. Before the first token it was not asked for, and that is well. */
export const jwksCheck = (jwks: Jwks["Service"]): Registered =>
  selfCheck(
    "jwks",
    Effect.map(jwks.status, ({ age, failures, keys, usable }): CheckAnswer => ({
      status: whenever(failures > 0 || (age !== undefined && !usable)),
      details: { usable, keys, failures, ...(age === undefined ? {} : { ageMillis: Math.round(age) }) }
    }))
  )

/** Records that waited longer than this are too late to be of use while something happens. */
const maxLagMillis = 5000

/**
 * An audit log that loses records, is slow to write them or has stopped degrades. A sink that hangs writes nothing, so it
 * is known by records that wait while none was written since the last look.
 */
export const auditCheck = (stats: AuditLog["Service"]["stats"]): Registered => {
  let before = { lost: 0, written: 0, queued: 0 }
  return selfCheck(
    "audit",
    Effect.map(stats, ({ lagMillis, lost, queued, written }): CheckAnswer => {
      const hasStopped = queued > 0 && before.queued > 0 && written === before.written
      const isBad = lost > before.lost || hasStopped || (lagMillis > maxLagMillis && queued > 0)
      before = { lost, written, queued }
      return { status: whenever(isBad), details: { written, lost, queued, lagMillis: Math.round(lagMillis) } }
    })
  )
}
