/**
 * Which resilience parts guard a tool, and how.
 *
 * @since 0.1.0
 */

/**
 * The resilience settings of one tool.
 *
 * @category models
 * @since 0.1.0
 */
export interface ResiliencePolicy {
  readonly dependency?: string | undefined
  readonly circuitBreaker?: {} | false | undefined
  readonly retry?: {} | false | undefined
  readonly timeout?: {} | false | undefined
  readonly bulkhead?: {} | false | undefined
  readonly hedge?: {} | false | undefined
}
