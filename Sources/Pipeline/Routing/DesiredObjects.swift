import Pipeline

/// Desired state, object by object, each as the JSON text that it came as. Where several objects came with one id,
/// their texts are joined by a comma: a list made of texts has them all, and is judged as the document was.
///
/// Threading: as the ``RoutingState`` that is given it.
public protocol DesiredObjects {
    /// Nil: there is none. Valid until the objects change.
    /// - Parameter id: of an entry of `hostnames` its canonical name, with the mark of a wildcard.
    func text(_ kind: StateKind, _ id: Bytes) -> UnsafeRawBufferPointer?
    /// All of a kind, in one order.
    func forEach(_ kind: StateKind, _ body: (_ id: Bytes, _ text: UnsafeRawBufferPointer) -> Void)
}
