export * as RateLimitError from "./RateLimitError.ts"
export * as RateLimitMiddleware from "./RateLimitMiddleware.ts"
