import Pipeline
import PipelineRuntime

/// What calls do to the world.
extension World {
    func dequeue(_ listener: Int) -> Connection? {
        guard !listeners[listener].queue.isEmpty else { return nil }
        return connections[listeners[listener].queue.removeFirst()]
    }

    /// What arrives on this socket.
    func stream(from socket: Socket) -> ByteStream {
        let plan = connections[socket.connection].plan
        return socket.side == .client ? plan.client.stream : plan.server.stream
    }

    /// [S34] No descriptor is left, and none to refuse with: the worker does not ask again for a while, unless control wants
    /// something, or there was one after all (seed 60096017).
    func starve(_ listener: Int) -> Outcome {
        let before = starved[listener, default: []]
        // A pause that began for another listener may be over soon.
        if before.count > 1, clock < before[before.count - 2] + 90_000_000, control.lastAt <= before[before.count - 2] {
            fail("S34: the worker asks again and again for connections that it can't have")
        }
        starved[listener] = before.suffix(1) + [clock]
        isStarved = true
        stats.starved += 1
        return Outcome(-Int(ErrorNumber.tooManyFiles))
    }

    // MARK: Connect

    func connect(_ backend: BackendAddress, _ way: UpstreamWay, on descriptor: Descriptor) -> Outcome {
        calls += 1
        let idle = takeSpare(descriptor)
        let connection = connections[actor]
        let candidate = Int(backend.endpoint.port) - 20_000
        guard connection.plan.candidates.indices.contains(candidate), Connection.backend(candidate) == backend else {
            fail("connect to \(backend.endpoint), which no stage has named for #\(actor)")
            return Outcome(-Int(ErrorNumber.networkUnreachable))
        }
        if let idle { check(idle, for: connection, candidate, way) }
        if beginsAttempt(connection, candidate, way) { countAttempt(connection, candidate) }
        effects += 1
        let plan = connection.plan.candidates[candidate]
        if let error = sourceFailure(connection) ?? failureAtOnce(plan) {
            note("connect for #\(connection.index), candidate \(candidate): error \(error)")
            let (worst, isLast) = noteFailure(connection, error)
            connection.connectError = worst
            if isLast, ownFailures.contains(worst) { stats.ownFailures[candidate, default: 0] += 1 }
            if error == ErrorNumber.noMemory { connection.metShortage = true }
            return Outcome(-Int(error))
        }
        connection.sources = SourceAttempt()
        connection.source = way.source
        return begin(connection, candidate, on: idle)
    }

    private func countAttempt(_ connection: Connection, _ candidate: Int) {
        checkConnect(connection, candidate)
        connection.attempts += 1
        connection.attemptedAt = clock
        connection.candidate = candidate
        connection.tried.append(candidate)
        connection.hadFirstBytes =
            !connection.preamble.isEmpty
            || (connection.inspection != .open && connection.client.taken > connection.consumed)
        checkTruth(connection, "is connected to for")
        stats.connects += 1
        stats.attempts[candidate, default: 0] += 1
    }

    private var ownFailures: [Int32] {
        [
            ErrorNumber.noMemory, ErrorNumber.notPermitted, ErrorNumber.addressNotAvailable, ErrorNumber.noSuchSource,
        ]
    }

    private func failureAtOnce(_ plan: ConnectPlan) -> Int32? {
        if !hasFreeDescriptor { return ErrorNumber.tooManyFiles }
        return switch plan {
        case .refusedAtOnce: ErrorNumber.connectionRefused
        case .unreachableAtOnce: ErrorNumber.networkUnreachable
        case .noPort: ErrorNumber.addressNotAvailable
        case .noMemory: ErrorNumber.noMemory
        case .forbidden: ErrorNumber.notPermitted
        default: nil
        }
    }

    private func begin(_ connection: Connection, _ candidate: Int, on idle: Spare?) -> Outcome {
        let plan = connection.plan
        let socket = Socket(
            .upstream, connection: connection.index,
            receiveCapacity: Scenario.buffer(&random, bytes: plan.server.bytes),
            sendCapacity: Scenario.buffer(&random, bytes: plan.client.bytes))
        guard let number = idle?.lend(to: socket, in: self) ?? allocate(.socket(socket)) else {
            return Outcome(-Int(ErrorNumber.tooManyFiles))
        }
        socket.descriptor = number
        let server = Peer(plan.server, socket)
        connection.upstream = socket
        connection.server = server
        connection.connectError = 0
        connection.connectDeadline = clock &+ scenario.settings.connectTimeout.nanoseconds
        socket.isConnecting = true
        switch plan.candidates[candidate] {
        case .atOnce:
            socket.isConnecting = false
            socket.heardAt = clock
            server.wakeAt = clock + UInt64(random.below(server.plan.pause))
        case .later(let delay), .refused(let delay), .unreachable(let delay), .resetAfterAccept(let delay):
            server.wakeAt = clock + UInt64(delay)
        default: break
        }
        note("connect for #\(connection.index), candidate \(candidate): fd \(number)")
        return Outcome(number)
    }

    // MARK: Bytes

    func receivedNothing(_ socket: Socket) -> Outcome {
        let answer = socket.emptyReceive()
        if answer != -Int(ErrorNumber.again) { effects += 1 }
        note("recv from \(socket.side) of #\(socket.connection): \(answer)")
        return Outcome(answer)
    }

    func took(_ socket: Socket, _ count: Int) {
        socket.taken += count
        if socket.side == .upstream, connections[socket.connection].firstAnswer == nil {
            noteRejecting(connections[socket.connection])
        }
        socket.peeked = 0
        if socket.side == .upstream, socket.taken >= 12, connections[socket.connection].firstAnswer == nil {
            connections[socket.connection].firstAnswer = clock
        }
        checkRate(socket, count)
        checkShare(socket, count)
        effects += 1
        note("recv from \(socket.side) of #\(socket.connection): \(count)")
        nudge(socket)
    }

    /// How many bytes a write may take, or the negative error.
    func roomToSend(_ socket: Socket, wanted: Int) -> Int {
        if let shortage = meetsShortage(socket, ErrorNumber.noBufferSpace) { return shortage }
        let refusal = socket.sendRefusal()
        if refusal != 0 {
            effects += refusal == -Int(ErrorNumber.again) ? 0 : 1
            note("send to \(socket.side) of #\(socket.connection): \(refusal)")
            return refusal
        }
        var room = min(wanted, socket.room)
        if room > 0, random.chance(scenario.pressure) {
            room = random.below(room + 1)
            socket.underPressure = room < wanted
        }
        if room < wanted { socket.wantsRoom() }
        if socket.underPressure { nudge(socket) }
        if room == 0 { note("send to \(socket.side) of #\(socket.connection): no room") }
        return room > 0 ? room : -Int(ErrorNumber.again)
    }

    /// The kernel has no memory for this call. The socket is none the worse for it.
    private func meetsShortage(_ socket: Socket, _ error: Int32) -> Int? {
        guard scenario.shortage > 0, !socket.isDead, random.below(1000) < scenario.shortage else { return nil }
        note("no memory for \(socket.side) of #\(socket.connection)")
        connections[socket.connection].metShortage = true
        effects += 1
        return -Int(error)
    }

    func gave(_ socket: Socket, _ count: Int) {
        socket.sent += count
        socket.wroteAt = clock
        socket.corked = 0
        if socket.side == .upstream, count > 0, connections[socket.connection].firstWrite == nil {
            connections[socket.connection].firstWrite = clock
        }
        effects += 1
        stats.bytes += count
        note("send to \(socket.side) of #\(socket.connection): \(count)")
        nudge(socket)
    }

    // MARK: Splicing

    func splice(_ from: Descriptor, _ to: Descriptor, _ count: Int, more: Bool) -> Outcome {
        let source = object(from, "splice")
        let sink = object(to, "splice")
        switch (source, sink) {
        case (.socket(let socket)?, .pipeWrite(let pipe)?): return fill(pipe, socket, count)
        case (.pipeRead(let pipe)?, .socket(let socket)?): return empty(pipe, socket, count, more)
        default:
            fail("splice between \(from.number) and \(to.number), which are no socket and pipe")
            return Outcome(-22)
        }
    }

    private func fill(_ pipe: Pipe, _ socket: Socket, _ wanted: Int) -> Outcome {
        var count = min(wanted, socket.readable)
        guard count > 0 else { return receivedNothing(socket) }
        count = min(count, pipe.capacity - pipe.count)
        guard count > 0 else { return Outcome(-Int(ErrorNumber.again)) }
        if scenario.shortage > 0, random.chance(10) {
            stats.unspliced += 1
            effects += 1
            return Outcome(-Int(ErrorNumber.noMemory))
        }
        if random.chance(scenario.partialSplice) { count = 1 + random.below(count) }
        pipe.pieces.append((socket, socket.taken, count))
        pipe.count += count
        stats.splices += 1
        took(socket, count)
        return Outcome(count)
    }

    private func empty(_ pipe: Pipe, _ socket: Socket, _ wanted: Int, _ more: Bool) -> Outcome {
        var count = min(wanted, pipe.count)
        guard count > 0 else { return Outcome(-Int(ErrorNumber.again)) }
        if random.chance(scenario.partialSplice) { count = 1 + random.below(count) }
        count = roomToSend(socket, wanted: count)
        guard count > 0 else { return Outcome(count) }
        var left = count
        while left > 0, let piece = pipe.pieces.first {
            let part = min(left, piece.count)
            check(socket, splices: piece.source, start: piece.start, count: part)
            gave(socket, part)
            left -= part
            pipe.pieces[0].start += part
            pipe.pieces[0].count -= part
            if pipe.pieces[0].count == 0 { pipe.pieces.removeFirst() }
        }
        pipe.count -= count
        // A write that was cut short for want of room is pushed all the same.
        if more, count == wanted {
            socket.corked = random.below(min(count, scenario.pacedSegment ?? count) + 1)
            stats.pieces += 1
        }
        return Outcome(count)
    }

    // MARK: Ends

    func shutDown(_ socket: Socket) {
        checkShutdown(socket)
        effects += 1
        guard !socket.isDead else { return }
        socket.finSent = true
        // `inet_shutdown` wakes those who poll, the caller included.
        socket.hasEdge = true
        note("FIN to \(socket.side) of #\(socket.connection)")
        nudge(socket)
    }

    /// A descriptor of the worker's own for one of control's.
    func take(_ published: Descriptor) -> Outcome {
        calls += 1
        guard let index = listeners.firstIndex(where: { $0.descriptor == Int(published.number) && $0.isOpen }) else {
            fail("S15: the worker takes \(published.number), which it has ended")
            return Outcome(-9)
        }
        if listeners[index].isTaken { fail("S15: the listener \(index) is taken twice") }
        let fails = scenario.watchFails > 0 && random.chance(scenario.watchFails)
        guard !fails, let number = allocate(.listener(index)) else { return Outcome(-Int(ErrorNumber.tooManyFiles)) }
        listeners[index].isTaken = true
        effects += 1
        return Outcome(number)
    }

    /// Ends it. Of a listener that is let go of nobody else has a descriptor here, so that ends it as well.
    func stopListening(_ descriptor: Descriptor) {
        guard case .listener(let index)? = object(descriptor, "end of a listener") else { return }
        checkListenerClose(index)
        listeners[index].isOpen = false
        listeners[index].key = nil
        close(descriptor, .orderly)
    }

    func close(_ descriptor: Descriptor, _ how: Socket.Closing) {
        guard let object = object(descriptor, "close") else { return }
        table[Int(descriptor.number)] = nil
        effects += 1
        switch object {
        case .listener(let index): listeners[index].isTaken = false
        case .socket(let socket):
            // `close` with unread bytes is a reset, whatever was meant.
            if socket.side == .client { checkRoom(connections[socket.connection], how) }
            socket.closedBy = how == .orderly && socket.unread > 0 ? .reset : how
            socket.key = nil
            if socket.side == .upstream {
                actor = socket.connection
                noteLostAttempt(socket)
            }
            note("close of \(socket.side) of #\(socket.connection) (fd \(descriptor.number)): \(socket.closedBy)")
        case .idle: note("close of the idle fd \(descriptor.number)")
        case .pipeRead, .pipeWrite: break
        }
    }

    func noteLostAttempt(_ socket: Socket) {
        let connection = connections[socket.connection]
        guard connection.upstream === socket else { return }
        // A backend that accepts in the moment in which its time is over may be given up all the same.
        let isUnused = socket.sent == 0 && socket.taken == 0 && !socket.finSent
        let isOverdue = clock >= connection.connectDeadline ?? .max
        let isLate = isUnused && isOverdue
        // Of a failure that nobody was told of yet, the worker knows nothing.
        let isToldDead = socket.isDead && (socket.isToldDead || !(socket.hasEdge && isOverdue))
        connection.connectDeadline = nil
        if socket.isConnecting || socket.isDead || isLate {
            connection.connectError = isToldDead ? socket.causeOfDeath : ErrorNumber.timedOut
        }
        socket.isConnecting = false
        socket.heardAt = clock
    }
}
