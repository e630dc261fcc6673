import Pipeline
import PipelineRuntime

/// The worker's kernel, played by a ``World``.
struct FakeKernel: Kernel {
    let world: World

    func now() -> Instant { Instant(nanoseconds: world.clock) }
    func wallClock() -> UInt64 { 1_700_000_000_000_000_000 + world.clock }
    func wake(workersAt place: Int) { world.note("rings worker \(place)") }
    func wait(_ events: UnsafeMutableBufferPointer<Event>, timeout: TimeSpan?) -> Int {
        world.wait(events, timeout: timeout)
    }

    func take(_ listener: Descriptor) -> Outcome { world.take(listener) }
    func stopListening(_ listener: Descriptor) { world.stopListening(listener) }
    func letGo(_ listener: Descriptor) { world.stopListening(listener) }

    func accept(_ listener: Descriptor, _ accepted: inout Accepted) -> Outcome {
        guard case .listener(let index)? = world.object(listener, "accept") else { return again }
        // Linux looks for a free descriptor before it looks at the queue.
        guard world.hasFreeDescriptor else { return error(ErrorNumber.tooManyFiles) }
        guard let connection = world.dequeue(index) else { return again }
        if connection.plan.isAborted {
            connection.state = .aborted
            world.effects += 1
            return error(ErrorNumber.connectionAborted)
        }
        guard let number = world.allocate(.socket(connection.client)) else { return again }
        connection.client.descriptor = number
        connection.state = .accepted
        connection.client.heardAt = world.clock
        connection.acceptedAt = world.clock
        world.effects += 1
        world.stats.accepted += 1
        connection.number = world.stats.accepted
        world.note("accept: #\(connection.index) is fd \(number)")
        world.starved = [:]
        accepted = Accepted(descriptor: Descriptor(Int32(number)), peer: connection.address)
        return Outcome(number)
    }

    func refuse(_ listener: Descriptor, _ peer: inout Endpoint) -> Outcome {
        guard case .listener(let index)? = world.object(listener, "refuse") else { return again }
        guard world.scenario.hasReserve else { return world.starve(index) }
        guard let connection = world.dequeue(index) else { return again }
        connection.state = .refused
        connection.client.closedBy = .reset
        world.effects += 1
        world.note("refuse: #\(connection.index)")
        peer = connection.address
        return Outcome(0)
    }

    func localAddress(_ descriptor: Descriptor) -> Endpoint? {
        guard let socket = world.socket(descriptor, "getsockname"), !socket.isDead else { return nil }
        return Endpoint(IPAddress(high: 0x2001_0DB8 << 32, low: 0xFFFF), 443)
    }

    func originalDestination(_ descriptor: Descriptor) -> Endpoint? { localAddress(descriptor) }
    func interface(of descriptor: Descriptor) -> UInt32 { world.socket(descriptor, "getsockopt") == nil ? 0 : 2 }
    func isOwn(_ address: IPAddress) -> Bool { false }

    func connect(_ backend: BackendAddress, _ way: UpstreamWay, on idle: Descriptor) -> Outcome {
        world.connect(backend, way, on: idle)
    }
    func isDelivered(_ descriptor: Descriptor) -> Bool {
        guard let socket = world.socket(descriptor, "ioctl(SIOCOUTQ)") else { return false }
        socket.isToEndOrderly = true
        return socket.isDelivered
    }
    func disconnect(_ descriptor: Descriptor) -> Bool { world.disconnect(descriptor) }

    func capBuffers(_ descriptor: Descriptor) {
        guard world.socket(descriptor, "setsockopt(SO_SNDBUF)") != nil else { return }
        // The worker may not have heard yet that it is over.
        if !world.control.wasShort { world.fail("a socket is capped, and memory is not short") }
        world.effects += 1
    }
    func guardAgainstDeath(_ descriptor: Descriptor) { _ = world.socket(descriptor, "setsockopt") }

    func silence(of descriptor: Descriptor) -> PeerSilence? {
        guard let socket = world.socket(descriptor, "getsockopt(TCP_INFO)") else { return nil }
        return world.silence(of: socket)
    }

    func probe(_ descriptor: Descriptor, every longest: TimeSpan?) { _ = world.socket(descriptor, "setsockopt") }

    func pendingError(_ descriptor: Descriptor) -> Int32 {
        world.socket(descriptor, "getsockopt(SO_ERROR)")?.takeError() ?? 0
    }

    func receive(_ descriptor: Descriptor, _ buffer: UnsafeMutableRawBufferPointer) -> Outcome {
        guard let socket = world.socket(descriptor, "recv") else { return error(ErrorNumber.connectionReset) }
        guard buffer.count > 0 else {
            world.fail("recv of nothing, which can't be told from FIN")
            return again
        }
        let count = min(socket.readable, buffer.count)
        guard count > 0 else { return world.receivedNothing(socket) }
        world.stream(from: socket).copy(
            from: socket.taken, into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<count]))
        world.took(socket, count)
        return Outcome(count)
    }

    func peek(_ descriptor: Descriptor, _ buffer: UnsafeMutableRawBufferPointer) -> Outcome {
        guard let socket = world.socket(descriptor, "recv(MSG_PEEK)") else { return error(ErrorNumber.connectionReset) }
        let count = min(socket.readable, buffer.count)
        guard count > 0 else { return world.receivedNothing(socket) }
        world.stream(from: socket).copy(
            from: socket.taken, into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<count]))
        socket.peeked = count
        world.stats.peeks += 1
        world.note("peek at \(socket.side) of #\(socket.connection): \(count)")
        return Outcome(count)
    }

    func discard(_ descriptor: Descriptor, _ count: Int) -> Outcome {
        guard let socket = world.socket(descriptor, "recv(MSG_TRUNC)") else {
            return error(ErrorNumber.connectionReset)
        }
        guard count > 0, count <= socket.peeked else {
            world.fail("\(count) bytes are thrown away that nobody has looked at")
            return again
        }
        world.took(socket, count)
        return Outcome(count)
    }

    func send(_ descriptor: Descriptor, _ first: UnsafeRawBufferPointer, _ second: UnsafeRawBufferPointer)
        -> Outcome
    {
        guard let socket = world.socket(descriptor, "send") else { return error(ErrorNumber.brokenPipe) }
        let total = first.count + second.count
        if total == 0 { world.fail("send of nothing") }
        let count = world.roomToSend(socket, wanted: total)
        guard count > 0 else { return Outcome(count) }
        let firstCount = min(count, first.count)
        world.check(socket, sends: UnsafeRawBufferPointer(rebasing: first[..<firstCount]))
        world.gave(socket, firstCount)
        if count > firstCount {
            world.check(socket, sends: UnsafeRawBufferPointer(rebasing: second[..<(count - firstCount)]))
            world.gave(socket, count - firstCount)
        }
        return Outcome(count)
    }

    func setLowWater(_ descriptor: Descriptor, _ bytes: Int) {
        guard let socket = world.socket(descriptor, "setsockopt(SO_RCVLOWAT)") else { return }
        socket.lowWater = bytes
        if socket.unread > 0 { socket.hasEdge = true }
        world.effects += 1
    }

    func splice(_ from: Descriptor, _ to: Descriptor, _ count: Int, more: Bool) -> Outcome {
        world.splice(from, to, count, more: more)
    }

    func pacedSegment(_ descriptor: Descriptor) -> Int? {
        guard world.socket(descriptor, "getsockopt(TCP_CONGESTION)") != nil else { return nil }
        return world.scenario.pacedSegment
    }

    func makePipe(capacity: Int, writeEnd: inout Descriptor) -> Outcome {
        world.calls += 1
        guard world.openDescriptors + 2 <= world.scenario.descriptors else { return error(ErrorNumber.tooManyFiles) }
        let pipe = World.Pipe(capacity: world.random.pick(world.scenario.pipes) ?? capacity)
        guard let read = world.allocate(.pipeRead(pipe)), let write = world.allocate(.pipeWrite(pipe)) else {
            return error(ErrorNumber.tooManyFiles)
        }
        world.effects += 1
        world.stats.pipes += 1
        writeEnd = Descriptor(Int32(write))
        return Outcome(read)
    }

    func shutdownWrite(_ descriptor: Descriptor) {
        guard let socket = world.socket(descriptor, "shutdown") else { return }
        world.shutDown(socket)
    }

    func close(_ descriptor: Descriptor) { world.close(descriptor, .orderly) }
    func closeWithReset(_ descriptor: Descriptor) { world.close(descriptor, .reset) }

    func watch(_ descriptor: Descriptor, _ key: EventKey) -> Outcome {
        guard let socket = world.socket(descriptor, "epoll_ctl") else { return error(9) }
        if socket.key != nil { world.fail("epoll_ctl(ADD) of fd \(descriptor.number), which is there already") }
        if world.random.chance(world.scenario.watchFails) {
            world.connections[socket.connection].watchFailed = true
            return error(ErrorNumber.noMemory)
        }
        socket.key = key
        socket.hasEdge = true
        world.effects += 1
        return Outcome(0)
    }

    func watchLevel(_ descriptor: Descriptor, _ key: EventKey) -> Outcome {
        guard case .listener(let index)? = world.object(descriptor, "epoll_ctl") else { return error(9) }
        world.listeners[index].key = key
        world.isStarved = false
        // An update has all listeners looked after, whatever they waited for.
        if world.clock < world.control.lastAt + 50_000_000 { world.starved[index] = nil }
        return Outcome(0)
    }

    func unwatch(_ descriptor: Descriptor) {
        switch world.object(descriptor, "epoll_ctl(DEL)") {
        case .socket(let socket)?: socket.key = nil
        case .idle: world.fail("epoll_ctl(DEL) of the idle socket \(descriptor.number)")
        case .listener(let index)?: world.listeners[index].key = nil
        default: break
        }
    }

    private var again: Outcome { error(ErrorNumber.again) }
    private func error(_ number: Int32) -> Outcome { Outcome(-Int(number)) }
}
