import Pipeline
import PipelineRuntime

/// What must hold of sides that are gone: their last words, and when they are missed.
extension World {
    /// How long a worker may take to notice, besides what it may wait: two ticks of the wheel and a turn.
    private var slack: UInt64 { 3 << 23 }

    /// How long the peer has been silent, as `TCP_INFO` has it. Only one that has been quiet is asked, and not often; an idle
    /// timeout asks at its own deadlines.
    func silence(of socket: Socket) -> PeerSilence {
        let half = scenario.settings.userTimeout.nanoseconds / 2
        let quiet = quiet(socket)
        if let last = socket.askedAt, clock - last < half, scenario.idleTimeout == .zero {
            fail("S31: \(socket.side) of #\(socket.connection) is asked again after \(clock - last) ns")
        }
        socket.askedAt = clock
        guard let since = socket.silentSince else {
            // Its TCP acknowledges, however slowly it reads; a probe of a shut window may be seldom.
            let isOwed = socket.inFlight > 0
            let isAsked = isOwed && random.chance(50)
            let longest = isAsked ? half / 2 : 3 * half
            return PeerSilence(
                isOwed: isOwed, isUnanswered: isAsked,
                lasts: TimeSpan(nanoseconds: UInt64(random.below(Int(longest)))), quiet: quiet)
        }
        let isOwed = socket.inFlight > 0 || socket.finSent
        return PeerSilence(
            isOwed: isOwed, isUnanswered: isOwed, lasts: TimeSpan(nanoseconds: clock - since), quiet: quiet)
    }

    /// How long its peer has sent and acknowledged nothing.
    private func quiet(_ socket: Socket) -> TimeSpan {
        let acknowledges = socket.inFlight > 0 && socket.silentSince == nil
        socket.toldQuiet = acknowledges ? .zero : TimeSpan(nanoseconds: clock - socket.heardAt)
        return socket.toldQuiet
    }

    func isToldDead(_ descriptor: Descriptor) -> Bool {
        let number = Int(descriptor.number)
        guard table.indices.contains(number), case .socket(let socket)? = table[number] else { return false }
        return socket.isToldDead
    }

    /// [S31] A peer is called dead only after it was silent for the whole timeout, with something owed to it.
    func isFoundSilent(_ socket: Socket?) -> Bool {
        guard let socket, let since = socket.silentSince, socket.inFlight > 0 || socket.finSent else { return false }
        return clock - since >= scenario.settings.userTimeout.nanoseconds
    }

    /// [S29] What a side had sent before it was gone has gone to the other, as far as that took it.
    func checkLastWords(_ connection: Connection, _ code: ReasonCode) {
        // A sink that this node has no memory for is not asked again.
        guard let upstream = connection.upstream, mailbox.order != .stop, !connection.metShortage else { return }
        switch RuntimeReason(rawValue: code.rawValue) {
        case .resetByUpstream?, .upstreamTimedOut?:
            checkLastWords(connection, upstream, to: connection.client, held: connection.heldDown)
        case .resetByClient?, .clientTimedOut?:
            guard connection.inspection != .open else { return }
            checkLastWords(connection, connection.client, to: upstream, held: connection.heldUp)
        default: return
        }
    }

    private func checkLastWords(_ connection: Connection, _ source: Socket, to sink: Socket, held: Int) {
        let left = source.unread + held
        // What was told by a sink that has no room, or none any more, is its word; room that nobody was told of is none.
        guard left > 0, !sink.isDead, !sink.isSilent, !sink.finSent, sink.isWritable, !sink.hasEdge else { return }
        fail("S29: \(left) bytes that the \(source.side) of #\(connection.index) had sent are lost with it")
    }

    /// [S30] [S31] A side that is gone is missed in time.
    func checkMissed(_ connection: Connection) {
        for socket in [connection.client, connection.upstream] {
            if let socket, socket.isDead, socket.diedAt == nil { socket.diedAt = clock }
        }
        guard connection.isLive, let upstream = connection.upstream, upstream.isOpen else { return }
        let client = connection.client
        if upstream.isConnecting {
            guard let died = client.diedAt, !client.hasEdge || client.key == nil else { return }
            miss(connection, after: max(died, connection.attemptedAt) + 100_000_000, "is connected for, and is gone")
            return
        }
        guard !client.hasEdge, !upstream.hasEdge, upstream.key != nil, client.key != nil else { return }
        // A machine that was suspended has its time all at once, and progress is measured from there.
        guard scenario.lateness == 0 else { return }
        if let died = client.diedAt, waitsForRate(connection, .client) == nil {
            miss(connection, after: max(died, upstream.wroteAt) + 1_000_000_000, "stands still, and is gone")
        }
        for socket in [client, upstream] {
            guard let since = socket.silentSince, !client.isDead, !upstream.isDead, socket.inFlight > 0 else {
                continue
            }
            // Then what it had sent has its time.
            let last = max(since, socket.wroteAt, client.wroteAt, upstream.wroteAt)
            let patience = scenario.settings.halfCloseTimeout.nanoseconds
            let limit = 5 * scenario.settings.userTimeout.nanoseconds / 2 + patience
            miss(connection, after: last + limit, "has a \(socket.side) that has long been silent")
        }
    }

    private func miss(_ connection: Connection, after deadline: UInt64, _ what: String) {
        guard deadline + slack < max(clock, min(wakes, clock + 3_600_000_000_000)) else { return }
        fail("S30: #\(connection.index) \(what)")
    }
}
