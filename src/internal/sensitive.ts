/** The annotation of a Schema whose values must not be told. `Redaction.sensitive` sets it. */
export const sensitiveAnnotation = "effect-toolops/sensitive"
