import Pipeline
import PipelineRuntime

/// `epoll_wait`, and the time that passes in it.
extension World {
    func wait(_ out: UnsafeMutableBufferPointer<Event>, timeout: TimeSpan?) -> Int {
        checkTurn(timeout)
        calls = 0
        effects = 0
        turnTaken = 0
        takenAfterShare = [:]
        stats.turns += 1
        if failure != nil { return 0 }
        let limit = timeout.map { clock &+ $0.nanoseconds } ?? .max
        clock += 1000 + UInt64(random.below(20_000)) + scenario.busy
        if random.chance(scenario.spurious) { spuriousEdge() }
        while true {
            runDue()
            if control.act(self) { return 0 }
            let count = deliver(out)
            if count > 0 || timeout == .zero || clock >= limit { return count }
            checkSleep()
            let next = min(nextMoment(), limit)
            // Rounds go on as long as connections stay: when every other deadline has long passed, it is over. So do tries to
            // accept where no descriptor is left.
            let isQuiet = nextMoment() == .max && quietWaits > 3
            guard next != .max, !isQuiet else {
                lastEffect = clock
                control.orderEnd(self)
                return 0
            }
            clock = max(clock, next)
            if next == limit, random.chance(scenario.lateness) { clock += lateness() }
        }
    }

    /// Longer than the worker's own timers take, one after the other, on a machine that is suspended meanwhile.
    static let quiet: UInt64 = 400_000_000_000

    /// Mostly what a busy scheduler takes; now and then a suspended machine.
    private func lateness() -> UInt64 {
        random.chance(90) ? UInt64(random.below(60_000_000)) : UInt64(random.below(100)) * 1_000_000_000
    }

    /// Wakeups that bring nothing new: the flags are those of the moment.
    private func spuriousEdge() {
        guard !table.isEmpty, case .socket(let socket)? = random.pick(table) else { return }
        if socket.key != nil { socket.hasEdge = true }
    }

    /// What is ready, in any order, and not necessarily all of it at once.
    private func deliver(_ out: UnsafeMutableBufferPointer<Event>) -> Int {
        var ready: [Int] = []
        for (number, object) in table.enumerated() {
            switch object {
            case .socket(let socket)?:
                guard socket.hasEdge, socket.key != nil else { continue }
                if socket.poll().isEmpty { socket.hasEdge = false } else { ready.append(number) }
            case .idle(let idle)?:
                if idle.hasEdge { ready.append(number) }
            case .listener(let index)?:
                if listeners[index].key != nil, !listeners[index].queue.isEmpty { ready.append(number) }
            default: continue
            }
        }
        guard !ready.isEmpty else { return 0 }
        var wanted = random.chance(70) ? ready.count : 1 + random.below(ready.count)
        wanted = min(wanted, out.count)
        for i in 0..<wanted {
            ready.swapAt(i, i + random.below(ready.count - i))
            out[i] = event(ready[i])
        }
        return wanted
    }

    private func event(_ number: Int) -> Event {
        switch table[number] {
        case .socket(let socket)?:
            let readiness = socket.poll()
            socket.hasEdge = false
            note("event for \(socket.side) of #\(socket.connection) (fd \(number)): \(readiness.names)")
            return Event(key: socket.key ?? EventKey(rawValue: 0), readiness: readiness)
        case .idle(let idle)?:
            idle.hasEdge = false
            return Event(key: idle.key, readiness: [.readable, .writable, .readEnd, .hangup])
        case .listener(let index)?:
            return Event(key: listeners[index].key ?? EventKey(rawValue: 0), readiness: .readable)
        default:
            return Event(key: EventKey(rawValue: 0), readiness: [])
        }
    }
}

extension Readiness {
    var names: String {
        [(Readiness.readable, "IN"), (.writable, "OUT"), (.readEnd, "RDHUP"), (.hangup, "HUP"), (.urgent, "PRI")]
            .filter { contains($0.0) }.map(\.1).joined(separator: "|")
    }
}
