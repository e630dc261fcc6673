import Pipeline

/// Original destinations of intercepted connections, and the forbidden ones.
extension Worker {
    /// The original destination, or the reason to end the connection with: it is unknown, or is the listener itself.
    mutating func findDestination(_ index: Int, _ listener: WorkerListener) -> RuntimeReason? {
        let slot = slab.slots + index
        slot.pointee.lasting.destination = DestinationAddress(listener.bound)
        switch listener.mode {
        case .direct where !listener.bound.address.isUnspecified:
            return nil
        case .direct, .transparent:
            guard let local = kernel.localAddress(slot.pointee.client) else { return .clientLeftEarly }
            slot.pointee.lasting.destination = DestinationAddress(local)
        case .redirect:
            guard let original = kernel.originalDestination(slot.pointee.client) else { return .notIntercepted }
            slot.pointee.lasting.destination = DestinationAddress(original)
        }
        guard listener.mode.intercepts else { return nil }
        slot.pointee.marks.insert(.intercepted)
        if isLoop(slot.pointee.lasting.destination.endpoint, listener) { return .interceptLoop }
        return staysHere(slot.pointee.lasting.destination.endpoint.address) ? .specialDestination : nil
    }

    /// Whatever the policy, no client is connected to this host itself: not by its own addresses, nor by any spelling
    /// of them.
    private mutating func staysHere(_ address: IPAddress) -> Bool {
        if address.isOfThisHostAlone || listeners.places.isOwn(address, at: now, &kernel) { return true }
        guard let spelled = spelledAddress(address) else { return false }
        return spelled.isOfThisHostAlone || listeners.places.isOwn(spelled, at: now, &kernel)
    }

    func spelledAddress(_ address: IPAddress) -> IPAddress? { SpelledAddress.v4(in: address, translatedBy: nat64) }

    /// A connect to an intercepting listener itself would loop. The same port on another host is fine, so the address
    /// is checked.
    private mutating func isLoop(_ destination: Endpoint, _ listener: WorkerListener) -> Bool {
        guard destination.port == listener.bound.port else { return false }
        return destination == listener.bound || listeners.places.isOwn(destination.address, at: now, &kernel)
    }
}
