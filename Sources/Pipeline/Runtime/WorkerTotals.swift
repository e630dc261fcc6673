import Pipeline

extension Slot {
    /// Payload bytes that each side's kernel took.
    @inline(__always) var payload: (toUpstream: UInt64, toClient: UInt64) {
        (UInt64(max(0, up.total)), UInt64(max(0, down.total)))
    }
}

/// The totals of a connection: for its stages while it is open and at its end, and for its log record.
extension Worker {
    /// - Parameter wallClock: 0 where no stage keeps accounts.
    func totals(_ index: Int, _ reason: ReasonCode, at wallClock: UInt64) -> ConnectionTotals {
        let slot = slab.slots + index
        let payload = slot.pointee.payload
        var totals = ConnectionTotals(
            route: slot.pointee.route, client: slot.pointee.lasting.client,
            destination: slot.pointee.lasting.destination,
            backend: slot.pointee.phase.isRelaying ? slot.pointee.backend : nil,
            bytesToUpstream: payload.toUpstream, bytesToClient: payload.toClient, reason: reason,
            duration: now.since(slot.pointee.accepted), instance: slot.pointee.instanceNumber,
            source: slot.pointee.lasting.peer.endpoint.address)
        totals.reported = slot.pointee.reported
        totals.isReported = slot.pointee.marks.contains(.progressReported)
        totals.at = wallClock
        return totals
    }

    mutating func settle(
        _ index: Int, _ reason: ReasonCode, _ interface: UInt32, _ unreachableFor: TimeSpan
    ) {
        let slot = slab.slots + index
        // Only accounting stages ask for the time.
        let at = chain(of: index).pointee.progressInterval == nil ? 0 : kernel.wallClock()
        let totals = totals(index, reason, at: at)
        counters.pointee.add(.bytesToUpstream, totals.bytesToUpstream)
        counters.pointee.add(.bytesToClient, totals.bytesToClient)
        assert(slot.pointee.passed & slot.pointee.inspecting == 0, "S13: a stage that still inspects is settled")
        assert(slot.pointee.up.total >= 0 || totals.bytesToUpstream == 0, "S14: a prelude counts as payload")
        let states = programs[slot.pointee.program].pointee.states
        let stages = chain(of: index).pointee.stages
        // A stage that still inspects is not among them.
        var left = slot.pointee.passed
        while left != 0 {
            let stage = stages.pointer(left.trailingZeroBitCount)
            left &= left - 1
            stage.pointee.filter.settleErased(
                stage.pointee.settings, states[stage.pointee.stateIndex], totals)
        }
        if logs { record(index, reason, totals, interface, unreachableFor) }
    }

    private mutating func record(
        _ index: Int, _ reason: ReasonCode, _ totals: ConnectionTotals, _ interface: UInt32,
        _ unreachableFor: TimeSpan
    ) {
        let slot = slab.slots + index
        var record = ConnectionRecord()
        record.interface = interface
        record.unreachableFor = unreachableFor
        record.serial = slot.pointee.lasting.serial
        record.listener = slot.pointee.lasting.listener
        record.reason = reason
        record.isRelayed = slot.pointee.phase.isRelaying
        record.sniff = slot.pointee.lasting.sniff
        if slot.pointee.lasting.shadowed.rawValue != .max { record.shadowed = slot.pointee.lasting.shadowed }
        record.peer = slot.pointee.lasting.peer.endpoint
        record.client = slot.pointee.lasting.client.endpoint
        record.destination = slot.pointee.lasting.destination.endpoint
        record.bytesToUpstream = totals.bytesToUpstream
        record.bytesToClient = totals.bytesToClient
        record.duration = totals.duration
        record.timeToConnect = slot.pointee.connected
        record.queued = .milliseconds(slot.pointee.lasting.queued)
        record.backend =
            slot.pointee.marks.contains(.direct)
            ? slot.pointee.lasting.destination.endpoint : slot.pointee.backend?.pointee.endpoint
        record.attempts = slot.pointee.tried
        if let route = slot.pointee.route { record.route.set(route.pointee.id.buffer) }
        if let owner = slot.pointee.owner {
            record.setEnv(org: owner.pointee.org, app: owner.pointee.app, env: owner.pointee.env)
        }
        if let identity = slot.pointee.lasting.identity {
            record.instance.set(identity.pointee.id.buffer)
            record.instanceNumber = identity.pointee.number
            if slot.pointee.owner == nil {
                record.setEnv(org: identity.pointee.org, app: identity.pointee.app, env: identity.pointee.env)
            }
        }
        record.serverName = slot.pointee.serverName
        record.isAccounted = isAccounted(index)
        log(&record)
    }

    /// A stage that records flows has settled it.
    private func isAccounted(_ index: Int) -> Bool {
        let chain = chain(of: index)
        guard chain.pointee.capabilities.contains(.recordsFlows) else { return false }
        var left = slab.slots[index].passed
        while left != 0 {
            let stage = chain.pointee.stages.pointer(left.trailingZeroBitCount)
            if stage.pointee.facts.capabilities.contains(.recordsFlows) { return true }
            left &= left - 1
        }
        return false
    }
}
