import { RateLimitStore } from "effect-toolops/limit"

/** `limit` tokens that come back evenly over `windowMillis`. */
export const shape = (
  name: string,
  limit: number,
  windowMillis: number,
  options?: { readonly burst?: number; readonly shadow?: boolean }
): RateLimitStore.BucketShape => {
  const intervalMillis = windowMillis / limit
  const burst = options?.burst ?? limit
  return {
    name,
    per: "identity",
    intervalMillis,
    burst,
    spanMillis: burst * intervalMillis,
    shadow: options?.shadow ?? false
  }
}

/** One call's wish of one bucket. */
export const takeOf = (bucket: RateLimitStore.BucketShape, key: string, cost: number): RateLimitStore.Take =>
  new RateLimitStore.Take(bucket, new RateLimitStore.BucketKey(key), cost)
