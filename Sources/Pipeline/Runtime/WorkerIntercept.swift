import Pipeline

/// Where intercepted connections were going, and what of that nobody is connected to.
extension Worker {
    /// Where the client was going. What to end the connection with if it can't be known, or if it is the listener itself.
    mutating func findDestination(_ index: Int, _ listener: WorkerListener) -> RuntimeReason? {
        let slot = slab.slots + index
        slot.pointee.destination = listener.bound
        switch listener.spec.mode {
        case .direct where !listener.spec.endpoint.address.isUnspecified:
            return nil
        case .direct, .transparent:
            guard let local = kernel.localAddress(slot.pointee.client) else { return .clientLeftEarly }
            slot.pointee.destination = local
        case .redirect:
            guard let original = kernel.originalDestination(slot.pointee.client) else { return .notIntercepted }
            slot.pointee.destination = original
        }
        guard listener.spec.mode.intercepts else { return nil }
        slot.pointee.marks.insert(.intercepted)
        if isLoop(slot.pointee.destination, listener) { return .interceptLoop }
        return staysHere(slot.pointee.destination.address) ? .specialDestination : nil
    }

    /// Whatever a policy says, nobody is connected to this host itself in the relay's name: not by an address of its own, nor by
    /// one that stands for it, in no spelling.
    private mutating func staysHere(_ address: IPAddress) -> Bool {
        if address.isOfThisHostAlone || listeners.places.isOwn(address, at: now, &kernel) { return true }
        guard let spelled = spelledAddress(address) else { return false }
        return spelled.isOfThisHostAlone || listeners.places.isOwn(spelled, at: now, &kernel)
    }

    func spelledAddress(_ address: IPAddress) -> IPAddress? { SpelledAddress.v4(in: address, translatedBy: nat64) }

    /// Whoever connects to an intercepting listener itself would be relayed to it again, and again. Another host's port
    /// of the same number is none of that, so it is asked whose address it is.
    private mutating func isLoop(_ destination: Endpoint, _ listener: WorkerListener) -> Bool {
        guard destination.port == listener.bound.port else { return false }
        return destination == listener.bound || listeners.places.isOwn(destination.address, at: now, &kernel)
    }
}
