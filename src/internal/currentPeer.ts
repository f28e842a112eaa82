import * as Context from "effect/Context"

/** See `RateLimit.CurrentPeer`. The audit log tells callers apart by it, too. */
export const CurrentPeer: Context.Reference<string | undefined> = Context.Reference<string | undefined>(
  "effect-toolops/limit/RateLimit/CurrentPeer",
  { defaultValue: () => undefined }
)
