import Pipeline
import PipelineRuntime

/// What connections share beyond their worker: counts that stages hold, byte rates, and the policy of ejection.
final class SharedThings {
    let reservations: UnsafeMutableBufferPointer<ReservationCount>
    let buckets: UnsafeMutableBufferPointer<ByteBuckets>
    let ejection: UnsafeMutablePointer<EjectionPolicy>?
    /// By bucket and direction: what was read under it, and since when.
    var read: [[Int]]
    var since: [[UInt64?]]

    init(_ scenario: Scenario) {
        reservations = .allocate(capacity: World.reservationCount)
        for i in reservations.indices {
            (reservations.baseAddress.unsafelyUnwrapped + i).initialize(to: ReservationCount())
        }
        buckets = .allocate(capacity: max(1, scenario.buckets.count))
        for (i, plan) in scenario.buckets.enumerated() {
            (buckets.baseAddress.unsafelyUnwrapped + i).initialize(
                to: ByteBuckets(
                    up: ByteBucket(bytesPerSecond: plan.up, burst: plan.burst),
                    down: ByteBucket(bytesPerSecond: plan.down, burst: plan.burst)))
        }
        read = scenario.buckets.map { _ in [0, 0] }
        since = scenario.buckets.map { _ in [nil, nil] }
        if let policy = scenario.ejection {
            ejection = .allocate(capacity: 1)
            ejection?.initialize(to: policy)
        } else {
            ejection = nil
        }
    }

    deinit {
        reservations.deallocate()
        buckets.deallocate()
        ejection?.deallocate()
    }
}

extension World {
    static let reservationCount = 2

    var ejection: UnsafePointer<EjectionPolicy>? { shared.ejection.map { UnsafePointer($0) } }
    func bucket(_ index: Int) -> UnsafePointer<ByteBuckets> {
        UnsafePointer(shared.buckets.baseAddress.unsafelyUnwrapped + index)
    }

    /// A stage counts the connection.
    func hold(_ connection: Connection, _ counts: some Sequence<Int>, _ effects: Effects) {
        for index in counts {
            let count = UnsafePointer(shared.reservations.baseAddress.unsafelyUnwrapped + index)
            count.pointee.add()
            if !effects.reserve(count) { fail("no room for a hold") }
            connection.held.append(index)
        }
    }

    /// A stage sets rates.
    func pace(_ connection: Connection, _ buckets: some Sequence<Int>, _ effects: Effects) {
        for index in buckets {
            if !effects.pace(bucket(index)) { fail("no room for a bucket") }
            connection.paced.append(index)
        }
    }

    // MARK: Checks

    /// [S21] When all is over nobody waits for a rate: one more that did would be alone.
    func checkLines() {
        for index in scenario.buckets.indices {
            let (plan, now) = (scenario.buckets[index], Instant(nanoseconds: clock))
            func isCrowded(_ bucket: borrowing ByteBucket, _ rate: UInt64) -> Bool {
                bucket.charge(Int(rate + plan.burst), at: now)
                bucket.join()
                return bucket.isCrowded(now)
            }
            if isCrowded(bucket(index).pointee.up, plan.up) || isCrowded(bucket(index).pointee.down, plan.down) {
                fail("S21: somebody waits for rate \(index) who is gone")
            }
        }
    }

    /// [S18] What stages have counted is given back once, when the connection ends.
    func checkHolds() {
        for index in shared.reservations.indices {
            let expected = connections.reduce(0) { sum, connection in
                sum + (connection.isLive ? connection.held.count { $0 == index } : 0)
            }
            let counted = (shared.reservations.baseAddress.unsafelyUnwrapped + index).pointee.current
            if Int(counted) != expected {
                fail("S18: \(expected) connections hold count \(index), which is \(counted)")
            }
        }
    }

    /// [S19] A backend counts those who are connected to it, or on their way, and never more than it may have.
    func checkCells() {
        for candidate in backendCells.indices {
            let expected = connections.count {
                $0.isLive && $0.candidate == candidate && $0.upstream?.isOpen == true
            }
            let counted = Int((backendCells.baseAddress.unsafelyUnwrapped + candidate).pointee.active.current)
            if counted != expected {
                fail("S19: backend \(candidate) has \(expected) connections and counts \(counted)")
            }
            let limit = Int(scenario.backendLimits[candidate])
            if limit > 0, counted > limit { fail("S19: backend \(candidate) has \(counted) connections of \(limit)") }
        }
    }

    /// [S19] [S20] What the cells have counted, when all is over.
    func checkCellTotals() {
        var connects: UInt64 = 0
        for candidate in backendCells.indices {
            let cell = backendCells.baseAddress.unsafelyUnwrapped + candidate
            connects += cell.pointee.connects.load(ordering: .relaxed)
            let failures = cell.pointee.failures.load(ordering: .relaxed)
            let own = stats.ownFailures[candidate, default: 0] + cell.pointee.connects.load(ordering: .relaxed)
            if failures + own > stats.attempts[candidate, default: 0] {
                fail("S20: backend \(candidate) is held \(failures) failures against, and some are this node's own")
            }
            let isEjected = cell.pointee.ejectedUntil.load(ordering: .relaxed) > 0
            let after = UInt64(scenario.ejection?.after ?? 0)
            if isEjected, after == 0 || failures < after { fail("S20: ejected after \(failures) failures of \(after)") }
            let inARow = UInt64(cell.pointee.failuresInARow.load(ordering: .relaxed))
            if !isEjected, after > 0, inARow >= after { fail("S20: \(inARow) failures in a row, and not ejected") }
        }
        let connected = connections.count { $0.wasConnected || $0.upgrade.deadline != nil }
        if connects != UInt64(connected) { fail("S19: \(connected) connects came about, and \(connects) are counted") }
    }

    /// [S21] Bytes that were read under a rate: never more than it, its burst, and one read a connection.
    func checkRate(_ socket: Socket, _ count: Int) {
        let connection = connections[socket.connection]
        let direction = socket.side == .client ? 0 : 1
        for index in connection.paced {
            let plan = scenario.buckets[index]
            let rate = direction == 0 ? plan.up : plan.down
            guard rate > 0 else { continue }
            let since = shared.since[index][direction] ?? clock
            shared.since[index][direction] = since
            shared.read[index][direction] += count
            let earned = Double(rate) * Double(clock - since) / 1e9 + Double(plan.burst)
            // First bytes are read before the rate is known, and charged afterwards.
            let allowance = Double(connections.count) * 2 * 65536
            if Double(shared.read[index][direction]) > earned + allowance {
                fail("S21: \(shared.read[index][direction]) bytes under a rate that has let \(Int(earned)) pass")
            }
        }
    }

    /// [S21] Until when a flow may be left alone for its rate; nil: it may not.
    func waitsForRate(_ connection: Connection, _ source: Socket.Side) -> UInt64? {
        let buckets = connection.paced.filter {
            source == .client ? !bucket($0).pointee.up.isUnlimited : !bucket($0).pointee.down.isUnlimited
        }
        guard !buckets.isEmpty else { return nil }
        var until = clock
        for index in buckets {
            let bucket = bucket(index)
            let now = Instant(nanoseconds: clock)
            let ready = source == .client ? bucket.pointee.up.readyAt(now) : bucket.pointee.down.readyAt(now)
            until = max(until, ready?.nanoseconds ?? 0)
        }
        // It is looked after once a millisecond; where several wait, each reads in its turn.
        let isShared = buckets.contains { index in connections.count { $0.plan.buckets.contains(index) } > 1
        }
        return until + 1_100_000 + (isShared ? 60_000_000 : 0)
    }

    // MARK: Headers

    /// [S22] Whether the world has seen what makes a doubt.
    func hasDoubted(_ connection: Connection) -> Bool {
        guard connection.plan.hasHeader, let upstream = connection.upstream else { return false }
        return saysRejection(connection) || upstream.finArrived || upstream.isDead
    }

    /// [S22] Whether it was for the worker to end it as rejected: doubts of three networks were there to be seen.
    func isRejectedWithCause(_ connection: Connection) -> Bool {
        guard hasDoubted(connection), connection.candidate >= 0 else { return false }
        let others = connections.filter {
            hasDoubted($0) && $0.candidate == connection.candidate
        }
        return Set(others.map { $0.record?.client.address ?? $0.address.address }).count >= 3
    }

    private func saysRejection(_ connection: Connection) -> Bool {
        let head = connection.plan.server.stream.head
        return head.starts(with: [0x15, 3]) || head.starts(with: Array("HTTP/1.1 400".utf8))
    }

    /// [S22] Whether it must have been noticed: the answer was read in time, of a backend that was known for it.
    func mustBeRejected(_ connection: Connection) -> Bool {
        guard connection.plan.hasHeader, saysRejection(connection),
            connection.wasRejectedBefore == true, let written = connection.firstWrite,
            let answered = connection.firstAnswer, connection.client.sent >= 12
        else { return false }
        return answered < written + BackendCell.HeaderVerdict.window.nanoseconds - 1_000_000_000
    }

    /// Bytes of the backend's answer are read, up to where it can be judged.
    func noteRejecting(_ connection: Connection) {
        guard connection.candidate >= 0 else { return }
        let cell = backendCells.baseAddress.unsafelyUnwrapped + connection.candidate
        let isRejecting = cell.pointee.proxy.load(ordering: .relaxed) == BackendCell.HeaderVerdict.rejected.rawValue
        connection.wasRejectedBefore = isRejecting && connection.wasRejectedBefore != false
    }
}
