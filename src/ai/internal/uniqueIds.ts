import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { ToolMeta } from "../../ToolMeta.ts"

interface Claim {
  readonly meta: ToolMeta
  readonly name: string
  holders: number
}

const claims = new WeakMap<object, Map<string, Claim>>()

/**
 * Makes an id one tool's alone behind a pipeline, for as long as the scope is open: what the stages keep, they keep by id.
 * The handlers of one tool may stand there more than once, for example for two servers.
 */
export const claimId = (pipeline: object, meta: ToolMeta, name: string): Effect.Effect<void, never, Scope.Scope> =>
  Effect.asVoid(Effect.acquireRelease(
    Effect.sync(() => {
      let ids = claims.get(pipeline)
      if (ids === undefined) claims.set(pipeline, ids = new Map())
      const claim = ids.get(meta.id) ?? { meta, name, holders: 0 }
      if (claim.meta !== meta) {
        throw new TypeError(`ToolkitOps.layer: ${claim.name} and ${name} are both named ${meta.id}`)
      }
      claim.holders += 1
      ids.set(meta.id, claim)
      return { claim, ids }
    }),
    ({ claim, ids }) =>
      Effect.sync(() => {
        claim.holders -= 1
        if (claim.holders === 0) ids.delete(meta.id)
      })
  ))
