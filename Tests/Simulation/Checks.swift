import Pipeline
import PipelineRuntime

/// What must hold while the worker runs. Numbers in brackets are those of docs/INVARIANTS.md.
extension World {
    /// The wheel's granularity, and one tick for the way there.
    private var slack: UInt64 { 2 << 23 }

    // MARK: At every write

    /// [S1] [S2] Bytes that the worker writes are the next ones of what belongs there.
    func check(_ socket: Socket, sends bytes: UnsafeRawBufferPointer) {
        let connection = connections[socket.connection]
        // Whoever had nothing to write relays since the backend accepted, and is not looked up any more.
        if socket.side == .upstream, socket.sent == 0, connection.hadFirstBytes {
            checkTruth(connection, "gets bytes of")
        }
        guard socket.side == .upstream else {
            return checkDown(connection, bytes)
        }
        let prelude = connection.preamble
        let inPrelude = max(0, min(bytes.count, prelude.count - socket.sent))
        for i in 0..<inPrelude where bytes[i] != prelude[socket.sent + i] {
            fail("S2: wrong prelude byte \(socket.sent + i) of #\(connection.index)")
            return
        }
        guard inPrelude < bytes.count else { return }
        let position = socket.sent + inPrelude - prelude.count + connection.consumed
        let payload = UnsafeRawBufferPointer(rebasing: bytes[inPrelude...])
        if connection.upgrade.isPending {
            fail("S38: the backend of #\(connection.index) gets bytes before it is ready")
        }
        let fine = connection.plan.client.stream.matches(payload, at: position)
        if !fine || position + payload.count > seen(connection.client) {
            fail("S1: wrong bytes to the backend of #\(connection.index) at \(socket.sent)")
        }
        checkInspection(connection)
    }

    /// What a stage says itself comes first.
    private func checkDown(_ connection: Connection, _ bytes: UnsafeRawBufferPointer) {
        let (said, sent) = (connection.said, connection.client.sent)
        let own = max(0, min(bytes.count, said.count - sent))
        for i in 0..<own where bytes[i] != said[sent + i] {
            fail("S38: wrong byte \(sent + i) of the answer to #\(connection.index)")
            return
        }
        guard own < bytes.count else { return }
        let position = sent + own - said.count + connection.upgrade.heard
        let payload = UnsafeRawBufferPointer(rebasing: bytes[own...])
        let fine = connection.plan.server.stream.matches(payload, at: position)
        if !fine || position + payload.count > seen(connection.upstream) {
            fail("S1: wrong bytes to client #\(connection.index) at \(sent)")
        }
    }

    /// How many bytes from there the worker knows.
    private func seen(_ socket: Socket?) -> Int { socket.map { $0.taken + $0.peeked } ?? 0 }

    func check(_ socket: Socket, splices source: Socket, start: Int, count: Int) {
        let connection = connections[socket.connection]
        let expected =
            socket.side == .client
            ? socket.sent - connection.said.count + connection.upgrade.heard
            : socket.sent - connection.preamble.count + connection.consumed
        if source.connection != socket.connection || source.side == socket.side || start != expected {
            fail("S1: spliced bytes of #\(source.connection) at \(start) reach #\(socket.connection) at \(expected)")
        }
        if socket.side == .upstream { checkInspection(connection) }
    }

    /// [S9]
    private func checkInspection(_ connection: Connection) {
        if connection.inspection == .open { fail("S9: bytes of #\(connection.index) pass an open inspection") }
    }

    // MARK: At other calls

    /// [S3] FIN is passed on only when it has come, and after everything before it.
    func checkShutdown(_ socket: Socket) {
        let connection = connections[socket.connection]
        if socket.finSent { fail("S3: FIN twice to \(socket.side) of #\(connection.index)") }
        guard !socket.isDead, let upstream = connection.upstream else { return }
        let source = socket.side == .client ? upstream : connection.client
        guard source.finArrived else {
            fail("S3: FIN to \(socket.side) of #\(connection.index), but none came from the other side")
            return
        }
        if source.unread > 0 { fail("S3: FIN to \(socket.side) of #\(connection.index) with \(source.unread) unread") }
        let held = socket.side == .client ? connection.heldDown : connection.heldUp
        if held > 0 { fail("S3: FIN to \(socket.side) of #\(connection.index) before \(held) bytes") }
    }

    /// [S28] Whoever is connected to, or gets first bytes, is one of the route's by the newest table, and the route is the
    /// owner's whom the connection was looked up for.
    func checkTruth(_ connection: Connection, _ what: String) {
        let candidate = connection.candidate
        guard !control.library.current(self).contains(where: { $0.allows(connection.route, candidate) }) else { return }
        fail("S28: candidate \(candidate) \(what) #\(connection.index), and is not its route's")
    }

    /// [S8] Each candidate once, in the order of the last choice, and none after a byte was written.
    func checkConnect(_ connection: Connection, _ candidate: Int) {
        if !connection.isLive { fail("connect for #\(connection.index), which is over") }
        if connection.tried.contains(candidate) { fail("S8: #\(connection.index) tries candidate \(candidate) again") }
        if connection.tried.count >= BackendCandidates.capacity { fail("S8: #\(connection.index) tries a fourth") }
        for skipped in connection.choice.prefix(while: { $0 != candidate }) where !isOut(skipped) {
            fail("S8: #\(connection.index) passes over candidate \(skipped)")
        }
        if scenario.backendLimits[candidate] > 0, isOverfull(candidate) {
            fail("S19: #\(connection.index) tries candidate \(candidate), which is full")
        }
        if let upstream = connection.upstream {
            if upstream.isOpen { fail("S8: #\(connection.index) connects twice at once") }
            if upstream.sent > 0 { fail("S8: #\(connection.index) retries after a byte was written") }
        }
        if connection.isRefusedByStage != nil { fail("#\(connection.index) was refused, and connects") }
    }

    /// Whether a candidate may be passed over: it has all the connections that it may have, or it is drained.
    private func isOut(_ candidate: Int) -> Bool {
        let cell = backendCells.baseAddress.unsafelyUnwrapped + candidate
        let limit = scenario.backendLimits[candidate]
        return (limit > 0 && cell.pointee.active.current >= limit)
            || control.isDrained(.backend(UnsafePointer(cell)), at: clock)
    }

    private func isOverfull(_ candidate: Int) -> Bool {
        (backendCells.baseAddress.unsafelyUnwrapped + candidate).pointee.active.current
            > scenario.backendLimits[candidate]
    }

    /// [S12] While draining, nothing that is queued is thrown away.
    func checkListenerClose(_ index: Int) {
        let canAccept = scenario.hasReserve || hasFreeDescriptor
        if mailbox.order != .stop, canAccept, !listeners[index].queue.isEmpty {
            fail("S12: a listener closes with connections in its queue")
        }
        for queued in listeners[index].queue { connections[queued].state = .dropped }
        listeners[index].queue = []
    }

    // MARK: Whenever the worker waits

    /// [S6] [S7] [S10]
    func checkTurn(_ timeout: TimeSpan?) {
        idleTurns = effects == 0 && timeout == .zero ? idleTurns + 1 : 0
        if idleTurns > 40 { fail("S7: the worker turns without doing anything") }
        if effects > 0 { lastEffect = clock }
        quietWaits = clock > lastEffect + World.quiet ? quietWaits + 1 : 0
        checkIdle(timeout)
        wakes = timeout.map { clock &+ $0.nanoseconds } ?? .max
        checkHolds()
        checkCells()
        checkQueue()
        control.library.checkPins(self)
        control.checkDrains(self, wakes: wakes)
        if connections.count(where: \.waits) > scenario.limits.unrouted { fail("S33: more wait than may") }
        for connection in connections { checkMissed(connection) }
        for connection in connections where connection.isLive {
            checkCounted(connection)
            if let deadline = connection.peekDeadline, min(deadline, .max - slack) + slack < max(clock, wakes) {
                fail("S10: #\(connection.index) may wait for its first bytes past its deadline")
            }
            if let deadline = connection.upgrade.deadline, connection.upgrade.isPending,
                deadline + slack < max(clock, wakes)
            {
                fail("S10: #\(connection.index) may wait past its deadline for a backend that is to begin TLS")
            }
            if let upstream = connection.upstream, upstream.isOpen, upstream.isConnecting,
                let deadline = connection.connectDeadline, deadline + slack < max(clock, wakes)
            {
                fail("S10: #\(connection.index) may wait for its backend past the deadline")
            }
        }
    }

    /// [S36] Once an iteration has moved its share, one connection may end its own; of each other a read or two each way is moved in
    /// its event's turn, and as much in the queue's, before the worker looks at what is new.
    func checkShare(_ socket: Socket, _ count: Int) {
        let before = turnTaken
        turnTaken += count
        stats.largestTurn = max(stats.largestTurn, turnTaken)
        guard before >= 1 << 18 else { return }
        takenAfterShare[socket.connection, default: 0] += count
        if takenAfterShare.count(where: { $0.value > 8 * 65536 }) > 1 {
            fail("S36: \(turnTaken) bytes are moved in one turn, by \(takenAfterShare) after the share")
        }
    }

    /// [S33] For want of a place a newcomer is refused only if nobody waits for first bytes; and whoever makes room has
    /// waited longest of the network that has most who wait.
    func checkRoom(_ connection: Connection, _ how: Socket.Closing) {
        guard how == .reset, mailbox.order != .stop, !connection.client.isDead, !connection.watchFailed else { return }
        let others = connections.filter { $0 !== connection && $0.waits }
        if connection.program == nil, !others.isEmpty, !control.wasShort {
            fail("S33: #\(connection.index) is refused, and #\(others[0].index) says nothing")
        }
        let isFull = connections.count { $0 !== connection && $0.isLive } >= scenario.limits.connections
        if connection.program == nil, isFull, !control.wasShort, let crowd = muteCrowd() {
            fail("S33: #\(connection.index) is refused, and network \(crowd) has a crowd that says nothing")
        }
        if connection.program == nil, isFull, !control.wasShort, let network = queuedCrowd() {
            fail("S33: #\(connection.index) is refused, and network \(network) has a crowd that waits for a place")
        }
        guard let deadline = connection.peekDeadline, clock < deadline, connection.isRefusedByStage == nil,
            connection.route == nil
        else { return }
        let (waiting, network) = (others + [connection], connection.network)
        let most = (0..<2 * Connection.networks).map { network in waiting.count { $0.network == network } }.max() ?? 0
        if waiting.count(where: { $0.network == network }) < most {
            fail("S33: #\(connection.index) makes room, and another network has more who wait")
        }
        if let older = others.first(where: { $0.network == network && $0.number < connection.number }) {
            fail("S33: #\(connection.index) makes room, and #\(older.index) has waited longer")
        }
    }

    /// A network that holds so many routed connections whose clients have said nothing that it is to make room; nil: none.
    private func muteCrowd() -> Int? {
        let mute = connections.filter { $0.isLive && $0.attempts > 0 && $0.isMute && seen($0.client) == 0 }
        return (0..<2 * Connection.networks).first { network in
            mute.count { $0.network == network } >= scenario.limits.crowd
        }
    }

    /// [S32] Whoever is there counts by its address, whatever its first bytes are waited for. A trusted sender's may say who
    /// the client is.
    private func checkCounted(_ connection: Connection) {
        guard scenario.chains[connection.plan.listener].limit != .none, !connection.isCounted else { return }
        let chain = scenario.chains[connection.plan.listener]
        // Who waits for a place above a stage that may say who the client is has not come to it.
        if connection.queuedAt != nil, chain.believes, connection.inspection == .none { return }
        let isSettled = connection.plan.trusted == 0 || connection.inspection == .over
        if connection.passed != 0, isSettled { fail("S32: #\(connection.index) is there, and is in no limit") }
    }

    /// [S6] The worker is about to sleep: nothing that it could do may be left.
    func checkSleep() {
        for (index, listener) in listeners.enumerated() where listener.isTaken && listener.key == nil {
            if !listener.queue.isEmpty, wakes > clock + 1_100_000_000 {
                fail("S34: the worker sleeps, and nobody looks after listener \(index)")
            }
        }
        for connection in connections where connection.isLive {
            let client = connection.client
            guard !client.hasEdge || client.key == nil else { continue }
            if isQueued(connection) {
                checkQueuedSleep(connection)
                continue
            }
            guard let upstream = connection.upstream, upstream.isOpen else {
                if client.sent < connection.said.count {
                    if client.isWritable || client.isDead {
                        fail("S38: the worker sleeps, and owes #\(connection.index) an answer")
                    }
                    continue
                }
                if client.unread > 0 || client.finArrived || client.isDead {
                    fail("S6: the worker sleeps, and #\(connection.index) has first bytes that nobody reads")
                }
                continue
            }
            guard !upstream.isConnecting, !upstream.hasEdge || upstream.key == nil else { continue }
            if connection.upgrade.isPending {
                checkUpgradeSleep(connection, upstream)
                continue
            }
            // Until the first write the relay has not begun; a kernel short of memory may hold that up.
            if upstream.sent == 0, connection.heldUp > 0, !upstream.isWritable { continue }
            checkFlow(connection, client, upstream, held: connection.heldUp)
            checkFlow(connection, upstream, client, held: connection.heldDown)
        }
    }

    private func checkFlow(_ connection: Connection, _ source: Socket, _ sink: Socket, held: Int) {
        var name: String { "#\(connection.index), from \(source.side)" }
        // A sink that is full holds everything up; its edge will come.
        guard sink.isWritable || sink.isDead else { return }
        // What the sink had sent before it was gone goes first, and waits for the source; what is for it is dropped.
        if sink.isDead || sink.isSilent, saysLastWords(connection, sink, to: source) { return }
        if sink.corked > 0, !sink.finSent, !sink.isDead {
            fail("S27: the worker sleeps, and \(sink.corked) bytes wait for more (\(name))")
        }
        let isUnread = source.unread > 0 && !sink.finSent
        let isWanted = source.isDead || isUnread || (source.finArrived && !sink.finSent && !sink.isDead)
        let isInspected = source.side == .client && connection.inspection == .open
        if isWanted, held == 0, !isInspected, let until = waitsForRate(connection, source.side) {
            if wakes > until { fail("S21: the worker sleeps past the time of a rate (\(name))") }
            return
        }
        if isUnread, held == 0, source.isGathering, !source.isDead, !source.finArrived {
            if wakes > clock + scenario.settings.coalesce.nanoseconds {
                fail("S25: a stream coalesces for good (\(name))")
            }
            return
        }
        if source.isDead { return fail("S6: the worker sleeps on a reset (\(name))") }
        // An inspection without a block has seen what it waits for more of, and left it where it is.
        if isInspected, source.peeked > 0, source.peeked == source.unread, !source.finArrived { return }
        if source.unread > 0, !sink.finSent { return fail("S6: the worker sleeps, \(source.unread) unread (\(name))") }
        if source.side == .client, connection.inspection == .open, !source.finArrived { return }
        if held > 0 { return fail("S6: the worker sleeps on \(held) bytes (\(name))") }
        if source.finArrived, !sink.finSent, !sink.isDead { fail("S6: the worker sleeps on a FIN (\(name))") }
    }

    /// A side that is gone has sent what the other one has no room for yet, or may not have yet.
    private func saysLastWords(_ connection: Connection, _ source: Socket, to sink: Socket) -> Bool {
        if waitsForRate(connection, source.side) != nil { return true }
        let held = sink.side == .client ? connection.heldDown : connection.heldUp
        return (source.unread > 0 || held > 0) && !sink.isWritable
    }

    /// [S11] Nothing will ever move again. What is half-closed should have been ended by its timer.
    func checkQuiescence() {
        for connection in connections where connection.isLive {
            guard let upstream = connection.upstream, upstream.isOpen else { continue }
            if upstream.finSent != connection.client.finSent {
                fail("S11: #\(connection.index) stays half-closed for ever")
            }
        }
    }
}
