import Pipeline

/// A listener as one worker holds it. Trivial, since it is copied at every accept.
package struct WorkerListener: Sendable {
    package let descriptor: Descriptor
    package let hint: ProtocolHint
    /// Index into ``Program/chains``.
    package let chain: Int
    let mode: ListenerMode
    /// Where it is bound, which differs from the spec's port 0.
    package let bound: Endpoint
    /// Index into ``Program/listeners``, for facts and logs.
    package let index: UInt16
    /// The index of the interface that it is bound to; 0: none.
    let interface: UInt32
    /// Nil: as the node's settings say.
    package let backlog: Int?
    let canary: CanaryEntrance

    package init(
        descriptor: Descriptor, spec: ListenerSpec, bound: Endpoint, index: UInt16, interface: UInt32 = 0,
        canary: CanaryEntrance = .none
    ) {
        self.canary = canary
        self.descriptor = descriptor
        self.bound = bound
        self.index = index
        self.interface = interface
        (hint, chain, mode, backlog) = (spec.hint, spec.chain, spec.mode, spec.options.backlog)
    }

    private init(_ other: WorkerListener, as heir: WorkerListener, _ own: Descriptor) {
        descriptor = own
        (hint, chain, mode, index, canary) = (heir.hint, heir.chain, heir.mode, heir.index, heir.canary)
        (bound, interface, backlog) = (other.bound, other.interface, other.backlog)
    }

    /// The same listener with another descriptor.
    func with(_ own: Descriptor) -> WorkerListener { WorkerListener(self, as: self, own) }

    /// Its queue, for connections that are `heir`'s by now.
    func queue(for heir: WorkerListener?) -> WorkerListener { WorkerListener(self, as: heir ?? self, descriptor) }
}
