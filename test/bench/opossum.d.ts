/** The part of opossum that is measured. */
declare module "opossum" {
  interface Options {
    readonly timeout?: number | false
    readonly capacity?: number
    readonly volumeThreshold?: number
    readonly resetTimeout?: number
  }
  export default class CircuitBreaker<A> {
    constructor(action: () => Promise<A>, options?: Options)
    fire(): Promise<A>
    open(): void
    shutdown(): void
  }
}
