import Pipeline

/// The connections to a backend are to be reset, once: those that a worker has when it applies the update. Unlike a
/// ``Drain`` it keeps no new connection away, for which the backend may be fit again.
///
/// The cell is only compared, never read. A connection pins its own, so that no other backend's has its address.
package struct BackendReset: @unchecked Sendable {
    package let backend: UnsafePointer<BackendCell>
    /// ``RuntimeReason/backendDown`` or ``RuntimeReason/primaryBack``.
    package let reason: RuntimeReason
    /// Each has a larger one than those before it, by which a worker knows what it has carried out.
    package let number: UInt64

    package init(_ backend: UnsafePointer<BackendCell>, reason: RuntimeReason, number: UInt64) {
        self.backend = backend
        self.reason = reason
        self.number = number
    }
}

extension Worker {
    /// Carries out those that it has not: one walk over the connections for all of them. A connect in
    /// progress goes on, and to another backend if this one fails it (R13).
    mutating func runResets(_ resets: UnsafeBufferPointer<BackendReset>) {
        let before = resetThrough
        let due = resets.filter { $0.number > before }
        guard let last = due.map(\.number).max() else { return }
        resetThrough = last
        let reasons = Dictionary(due.map { ($0.backend, $0.reason) }, uniquingKeysWith: { first, _ in first })
        for index in 0..<slab.extent where slab.slots[index].phase.isRelaying {
            guard let cell = slab.slots[index].backend, let reason = reasons[cell] else { continue }
            finish(index, reason.code, .reset)
        }
    }
}
