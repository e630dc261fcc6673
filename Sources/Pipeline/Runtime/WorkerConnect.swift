import Pipeline

/// From a route to a connected backend, with the first bytes written (R13).
extension Worker {
    /// Connects to the next backend: from the stages' choice, or, after a failure, from a new choice in the newest
    /// table (R1, R13).
    /// - Parameter earlier: the failure of the last attempt.
    mutating func connectNext(_ index: Int, after earlier: RuntimeReason? = nil) {
        let slot = slab.slots + index
        let pending = blocks.pending(slot.pointee.pending)
        slot.pointee.enter(.connecting)
        // The backend would read the client's first bytes as the PROXY header.
        guard !pending.pointee.facts.owesProxyHeader(of: slot.pointee.routeFlags) else {
            finish(index, RuntimeReason.owedProxyHeader.code, .reset)
            return
        }
        if let reason = drains.overdue(route: slot.pointee.route, at: now) ?? suspension(of: index) {
            finish(index, reason.code, .reset)
            return
        }
        guard pending.pointee.facts.direct == .no else {
            connectDirectly(index, pending.pointee.facts.direct, after: earlier)
            return
        }
        if slot.pointee.tried == 0 {
            pending.pointee.facts.firstAttempt = now
            // They were full when they were last chosen from.
            if pending.pointee.facts.queue != nil, pending.pointee.facts.candidates.count == 0 {
                guard chooseAgain(index, after: nil) else { return }
            }
        }
        var failure = earlier
        var excuse = RuntimeReason.noBackend
        while mayTry(index) {
            if slot.pointee.tried > 0 {
                guard chooseAgain(index, after: failure) else { return }
            }
            guard let backend = enterCandidate(index, &excuse) else { break }
            let outcome = openBackend(index, backend.pointee.address)
            if !outcome.isError {
                startConnecting(index)
                return
            }
            let reason = Worker.connectFailure(outcome.error)
            failure = reason
            noteConnectFailure(index, reason)
            // A shortage of descriptors or memory here is the same for every backend.
            guard reason != .noDescriptor, reason != .kernelMemory else { break }
        }
        if failure == nil, excuse == .backendsFull, pending.pointee.facts.queue != nil { return awaitPlace(index) }
        finish(index, (failure ?? excuse).code, .reset)
    }

    /// Connects to the original destination: there is no other candidate.
    private mutating func connectDirectly(_ index: Int, _ way: DirectConnect, after earlier: RuntimeReason?) {
        let slot = slab.slots + index
        if let earlier {
            finish(index, earlier.code, .reset)
            return
        }
        counters.pointee.add(.connectAttempts)
        slot.pointee.tried = 1
        slot.pointee.marks.insert(.direct)
        let isForeign = way == .fromClient
        let destination = slot.pointee.lasting.destination.endpoint
        let outcome = openUpstream(
            index, .direct(destination, isForeign: isForeign, of: slot.pointee.instanceNumber),
            UpstreamWay(
                source: isForeign ? slot.pointee.lasting.peer.endpoint.address : nil, isForeign: isForeign,
                isMarked: true
            ))
        guard !outcome.isError else {
            finish(index, Worker.connectFailure(outcome.error).code, .reset)
            return
        }
        startConnecting(index)
    }

    /// Starts the connect of the upstream socket: an idle one of the same key if there is one.
    mutating func openUpstream(_ index: Int, _ key: UpstreamKey, _ way: UpstreamWay) -> Outcome {
        let slot = slab.slots + index
        guard let place = upstreams.take(key, for: index, at: now, &kernel) else {
            return Outcome(-Int(ErrorNumber.tooManyFiles))
        }
        let idle = upstreams.descriptor(place)
        let outcome = kernel.connect(BackendAddress(key.destination), way, on: idle)
        guard !outcome.isError else {
            upstreams.give(place)
            return outcome
        }
        slot.pointee.upstream = Descriptor(Int32(truncatingIfNeeded: outcome.value))
        slot.pointee.socket = place
        slot.pointee.source = key.source
        if idle.isOpen {
            slot.pointee.marks.insert(.upstreamWatched)
            counters.pointee.add(.socketsReused)
        } else {
            upstreams.set(place, slot.pointee.upstream)
        }
        return outcome
    }

    /// Counts the connection in a backend that is tried next. False if the backend is full (R11) or drained, which is
    /// not a failure; `excuse` is the reason to end with if that holds for all.
    mutating func enterBackend(
        _ index: Int, _ backend: UnsafePointer<Backend>, _ excuse: inout RuntimeReason
    ) -> Bool {
        let slot = slab.slots + index
        if let reason = drains.overdue(backend: backend.pointee.cell, at: now) {
            excuse = reason
            return false
        }
        let endpoint = backend.pointee.address.endpoint
        guard endpoint.isUnixSocket || !listeners.places.contains(endpoint, at: now, &kernel) else {
            excuse = .backendLoop
            return false
        }
        let limit = backend.pointee.maxConnections
        if limit > 0, let queue = slot.pointee.policy?.pointee.groupQueue?.queue {
            guard mayClaim(backend.pointee.cell, queue) else {
                excuse = .backendsFull
                return false
            }
        }
        if limit == 0 {
            backend.pointee.cell.pointee.active.add()
        } else if !backend.pointee.cell.pointee.active.tryAdd(limit: limit) {
            excuse = .backendsFull
            return false
        }
        assert(!isStale(index), "S28: a backend is tried that an older table selected")
        assert(
            !blocks.pending(slot.pointee.pending).pointee.facts.tried.contains(backend.pointee.address.endpoint),
            "S8: a backend is tried twice")
        counters.pointee.add(.connectAttempts)
        if slot.pointee.tried > 0 { counters.pointee.add(.connectRetries) }
        leaveBackend(index)
        slot.pointee.backend = backend.pointee.cell
        slot.pointee.tried += 1
        blocks.pending(slot.pointee.pending).pointee.facts.tried.insert(backend.pointee.address.endpoint)
        return true
    }

    /// Removes the connection from its backend's count.
    mutating func leaveBackend(_ index: Int) {
        let slot = slab.slots + index
        guard let backend = slot.pointee.backend else { return }
        slot.pointee.backend = nil
        backend.pointee.active.remove()
        if let policy = slot.pointee.policy { placeFreed(policy) }
    }

    /// Passive health (R12). Shortages and firewalls of this node do not count against the backend.
    private mutating func noteConnectFailure(_ index: Int, _ reason: RuntimeReason) {
        let slot = slab.slots + index
        guard reason.text.side == .upstream, let backend = slot.pointee.backend else { return }
        assert(
            reason != .noPort && reason != .noDescriptor && reason != .kernelMemory && reason != .connectForbidden
                && reason != .noSource,
            "S20: a backend is blamed for a shortage of this node")
        let policy = blocks.pending(slot.pointee.pending).pointee.facts.ejection
        backend.pointee.noteFailure(at: now, policy)
    }

    private mutating func startConnecting(_ index: Int) {
        let slot = slab.slots + index
        if hasFirstBytes(index), eager.shouldTry() {
            let worked = sendFirst(index)
            guard slot.pointee.phase == .connecting else { return }
            eager.learn(worked)
            if worked {
                connected(index)
                return
            }
        }
        // It arrived with the first bytes: no other event will report it.
        if slot.pointee.up.state.contains(.hangupUnasked) {
            clientLeft(index)
            guard slot.pointee.phase == .connecting else { return }
        }
        guard keepWhileConnecting(index) else { return }
        let timeout = connectTimeout(of: index)
        let isPatient = !slot.pointee.marks.contains(.clientWatched) && timeout > Self.watchClientAfter
        wheel.arm(slab.slots, index, at: now + (isPatient ? Self.watchClientAfter : timeout))
        watchUpstream(index)
    }

    private func connectTimeout(of index: Int) -> TimeSpan {
        let slot = slab.slots + index
        guard slot.pointee.marks.contains(.direct) else { return connectTimeout }
        return blocks.pending(slot.pointee.pending).pointee.facts.directTimeout
    }

    /// How long a connect may take before its client is watched: most are over by then, and save the call.
    static var watchClientAfter: TimeSpan { .milliseconds(100) }

    mutating func watchUpstream(_ index: Int) {
        let slot = slab.slots + index
        guard !slot.pointee.marks.contains(.upstreamWatched) else { return }
        if kernel.watch(slot.pointee.upstream, upstreams.key(slot.pointee.socket)).isError {
            finish(index, RuntimeReason.internalError.code, .reset)
        } else {
            slot.pointee.marks.insert(.upstreamWatched)
        }
    }

    /// An event of the backend's socket during the connect.
    mutating func connectEvent(_ index: Int, _ readiness: Readiness) {
        let slot = slab.slots + index
        if readiness.contains(.hangup) {
            connectFailed(index, kernel.pendingError(slot.pointee.upstream))
            return
        }
        guard readiness.contains(.writable) else { return }
        guard isStillChosen(index) else {
            abandonConnect(index, .reset)
            connectNext(index, after: .routeChanged)
            return
        }
        noteReadable(&slot.pointee.down, readiness)
        if hasFirstBytes(index) {
            let sent = sendFirst(index)
            guard slot.pointee.phase == .connecting else { return }
            // No longer writable: wait, as for any full socket.
            guard sent else { return }
        }
        connected(index)
    }

    /// This backend failed: try the next one, if nothing was written yet (R13).
    mutating func connectFailed(_ index: Int, _ error: Int32) {
        // A local firewall fails the `connect` call itself. A later error is ICMPv6 "administratively prohibited" from
        // a firewall on the path; in IPv4 that is "host unreachable" (RFC 4443 §3.1, Linux icmpv6_err_convert).
        let error = error == ErrorNumber.accessDenied ? ErrorNumber.hostUnreachable : error
        let reason = Worker.connectFailure(error)
        abandonConnect(index, ErrorNumber.isOfPeer(error) ? .broken(.upstream) : .reset)
        noteConnectFailure(index, reason)
        connectNext(index, after: reason)
    }

    /// Closes the socket of a failed attempt.
    private mutating func abandonConnect(_ index: Int, _ ending: Ending) {
        let slot = slab.slots + index
        close(slot.pointee.upstream, .upstream, ending)
        upstreams.give(slot.pointee.socket)
        slot.pointee.upstream = .none
        slot.pointee.socket = Flow.none
        slot.pointee.marks.remove(.upstreamWatched)
        wheel.disarm(slab.slots, index)
        slot.pointee.down.state = .writable
    }

    mutating func connectDeadline(_ index: Int) {
        let slot = slab.slots + index
        let timeout = connectTimeout(of: index)
        guard !slot.pointee.marks.contains(.clientWatched), timeout > Self.watchClientAfter else {
            // The cause may be known, as from a firewall's or a router's ICMP error.
            let error = kernel.pendingError(slot.pointee.upstream)
            connectFailed(index, error == 0 ? ErrorNumber.timedOut : error)
            return
        }
        // A client that has gone meanwhile is reported at once.
        let rest = TimeSpan(nanoseconds: timeout.nanoseconds - Self.watchClientAfter.nanoseconds)
        wheel.arm(slab.slots, index, at: slot.pointee.deadline + rest)
        watchClient(index)
    }

    /// The backend is connected and has the first bytes: starts the relay.
    private mutating func connected(_ index: Int) {
        let slot = slab.slots + index
        guard !slot.pointee.marks.contains(.upgraded) else { return beginUpgrade(index) }
        slot.pointee.connected = now.since(slot.pointee.accepted)
        slot.pointee.backend?.pointee.noteConnect()
        enterRelaying(index)
        if slot.pointee.pending != Flow.none, !isInspecting(index) || stashInspectedBytes(index) {
            releasePending(index)
        }
        if slot.pointee.pending != Flow.none { blocks.pending(slot.pointee.pending).pointee.facts.forgetTable() }
        armRelaying(index)
        watchUpstream(index)
        guard slot.pointee.phase.isRelaying else { return }
        // Known readiness brings no new event.
        let clientIsKnown = slot.pointee.marks.contains(.clientWatched)
        watchClient(index)
        guard slot.pointee.phase.isRelaying else { return }
        let up = slot.pointee.up.state
        if up.contains(.eof) || (clientIsKnown && up.contains(.readable))
            || slot.pointee.down.state.contains(.readable)
        {
            pumpBoth(index)
        }
    }

    mutating func enterRelaying(_ index: Int) {
        let slot = slab.slots + index
        wheel.disarm(slab.slots, index)
        slot.pointee.enter(.relaying)
        lifeWatch.resume(now)
        if slot.pointee.marks.contains(.compared) { noteRelayed(index) }
        if slot.pointee.inspecting != 0 { slot.pointee.up.state.insert(.heldForInspection) }
        stopKeeping(index)
    }

    /// The age at which a connection's backend gets keepalive.
    static var guardAfter: TimeSpan { .seconds(1) }

    mutating func guardUpstream(_ index: Int) {
        guard !slab.slots[index].marks.contains(.upstreamGuarded) else { return }
        slab.slots[index].marks.insert(.upstreamGuarded)
        kernel.guardAgainstDeath(slab.slots[index].upstream)
    }

    /// Frees the block with facts and first bytes, if the connection still has it.
    mutating func releasePending(_ index: Int) {
        let slot = slab.slots + index
        guard slot.pointee.pending != Flow.none else { return }
        blocks.give(slot.pointee.pending, touched: blocks.pending(slot.pointee.pending).pointee.count)
        slot.pointee.pending = Flow.none
    }
}
