import type * as Schema from "effect/Schema"

/**
 * Makes an instance of an error class without running its constructor: no stack trace (3.6 us) and no schema pass.
 *
 * For refusals only. They are expected answers, made on the hot path from fields of our own, and their stack would
 * show nothing but this library. The error is otherwise whole: `instanceof`, `Effect.catchTag` and encoding work.
 */
export const refusal = <Self extends object, Fields extends Schema.Struct.Fields>(
  Class: { readonly prototype: Self; readonly fields: Fields },
  fields: Schema.Struct.Type<Fields>
): Self => Object.assign(Object.create(Class.prototype), fields)
