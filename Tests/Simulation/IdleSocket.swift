import Pipeline
import PipelineRuntime

/// An upstream socket that the worker has disconnected and keeps: still open, still registered, and connected to nobody.
final class Spare {
    let number: Int
    let key: EventKey
    /// Whose it was, and where it was connected to.
    let tenant: Int
    let backend: BackendAddress
    /// Where it is bound.
    let source: IPAddress?
    /// Disconnecting wakes those who poll; what they see depends on when they look.
    var hasEdge = true

    init(number: Int, key: EventKey, _ former: Connection) {
        self.number = number
        self.key = key
        tenant = former.tenant
        backend = Connection.backend(former.candidate)
        source = former.source
    }

    /// The next connection has it: the registration goes on, and so does an edge that nobody has looked at yet.
    func lend(to socket: Socket, in world: World) -> Int {
        socket.key = key
        socket.hasEdge = true
        world.table[number] = .socket(socket)
        world.stats.reused += 1
        return number
    }
}

extension World {
    /// `connect(AF_UNSPEC)`.
    func disconnect(_ descriptor: Descriptor) -> Bool {
        guard let socket = socket(descriptor, "disconnect") else { return false }
        // In `TCP_CLOSE` there is no RST to send.
        let isOver =
            socket.isToEndOrderly && socket.finSent && socket.finArrived && socket.unread == 0 && socket.isDelivered
        return disconnect(socket, descriptor, isOver ? .orderly : .reset)
    }

    /// What a kernel would do that ends the connection by FIN instead.
    func pretendDisconnect(_ descriptor: Descriptor) -> Bool {
        guard let socket = socket(descriptor, "disconnect") else { return false }
        return disconnect(socket, descriptor, .orderly)
    }

    private func disconnect(_ socket: Socket, _ descriptor: Descriptor, _ how: Socket.Closing) -> Bool {
        effects += 1
        guard socket.side == .upstream, let key = socket.key else {
            fail("disconnect of \(socket.side) of #\(socket.connection), which epoll does not watch")
            return false
        }
        if random.chance(5) { return false }
        socket.closedBy = how
        socket.key = nil
        noteLostAttempt(socket)
        note("disconnect of \(socket.side) of #\(socket.connection) (fd \(descriptor.number))")
        table[Int(descriptor.number)] = .idle(
            Spare(number: Int(descriptor.number), key: key, connections[socket.connection]))
        return true
    }

    /// [S24] Whoever has seen its former connection knows the sequence numbers of the next one.
    func check(_ idle: Spare, for connection: Connection, _ candidate: Int, _ way: UpstreamWay) {
        if idle.source != way.source {
            let before = String(describing: idle.source)
            fail("S24: #\(connection.index) connects by \(way) on a socket that came from \(before)")
        }
        guard idle.tenant != connection.tenant || idle.backend != Connection.backend(candidate) else { return }
        fail(
            "S24: #\(connection.index) of tenant \(connection.tenant) connects to"
                + " \(Connection.backend(candidate).endpoint) on a socket of tenant \(idle.tenant) that was connected"
                + " to \(idle.backend.endpoint)")
    }

    /// Any idle at all, with which a worker may have nothing to do; for what would be wrong with it.
    var someSpare: Descriptor {
        for case .idle(let idle)? in table { return Descriptor(Int32(idle.number)) }
        return .none
    }

    /// The idle that a connect uses. From the call on it is the call's: if that fails, it is closed.
    func takeSpare(_ descriptor: Descriptor) -> Spare? {
        guard descriptor.isOpen else { return nil }
        guard case .idle(let idle)? = object(descriptor, "connect again") else {
            fail("connect on descriptor \(descriptor.number), which is not idle")
            return nil
        }
        table[idle.number] = nil
        return idle
    }
}
