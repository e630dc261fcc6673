import Pipeline
import PipelineRuntime

/// An upstream socket that the worker has disconnected and keeps: still open, still registered, and connected to nobody.
final class Spare {
    let number: Int
    let key: EventKey
    /// Disconnecting wakes those who poll; what they see depends on when they look.
    var hasEdge = true

    init(number: Int, key: EventKey) {
        self.number = number
        self.key = key
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
        table[Int(descriptor.number)] = .spare(Spare(number: Int(descriptor.number), key: key))
        return true
    }

    /// The spare that a connect uses. From the call on it is the call's: if that fails, it is closed.
    func takeSpare(_ descriptor: Descriptor) -> Spare? {
        guard descriptor.isOpen else { return nil }
        guard case .spare(let spare)? = object(descriptor, "connect again") else {
            fail("connect on descriptor \(descriptor.number), which is no spare")
            return nil
        }
        table[spare.number] = nil
        return spare
    }
}
