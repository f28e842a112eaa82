export * as RateLimit from "./RateLimit.ts"
export * as RateLimitError from "./RateLimitError.ts"
export * as RateLimitMiddleware from "./RateLimitMiddleware.ts"
export * as RateLimitStore from "./RateLimitStore.ts"
