import Pipeline
import PipelineRuntime

/// What must hold when a connection has ended, and when the worker has.
extension World {
    /// [S5] A record has come: the one end of its connection, and true.
    func ended(_ record: ConnectionRecord) {
        let index = Int(record.peer.port) - 10_000
        guard index >= 0, index < connections.count else { return fail("a record of a connection that never was") }
        let connection = connections[index]
        stats.reasons[record.reason.rawValue, default: 0] += 1
        note("record of #\(index): reason \(reasonText(record.reason))")
        if record.queued > .zero, record.isRelayed { stats.servedFromQueue += 1 }
        if connection.record != nil { return fail("S5: #\(index) ends twice") }
        connection.record = record
        guard connection.state == .accepted else {
            if connection.state != .refused { fail("S5: #\(index) ends before it began") }
            return
        }
        if connection.client.isOpen || connection.upstream?.isOpen == true {
            return fail("S5: #\(index) has ended and its sockets have not")
        }
        checkTotals(connection, record)
        if connection.passed != connection.settled {
            fail("S13: #\(index) passed \(connection.passed) and settled \(connection.settled) (stages, as bits)")
        }
        let isTurnedAway =
            record.reason == RuntimeReason.tooManyConnections.code || record.reason == RuntimeReason.memoryShort.code
        if !isTurnedAway, Int(record.attempts) != connection.attempts {
            fail("S5: #\(index) tried \(connection.attempts) backends and says \(record.attempts)")
        }
        let shadowed =
            connection.plan.isShadowRefused && connection.passed & 1 != 0
            && scenario.chains[connection.plan.listener].shadows
        let expected = shadowed ? ReasonCode(rawValue: simulatedReasons.bases[0]) : nil
        if !isTurnedAway, record.shadowed != expected {
            fail("S5: #\(index) has shadowed \(record.shadowed.map(reasonText) ?? "nothing") in its record")
        }
        if mustBeRejected(connection), isRelayEnd(record.reason) {
            fail("S22: #\(index) is answered by a rejection of its header, and ends as \(reasonText(record.reason))")
        }
        checkReason(connection, record.reason)
        checkLastWords(connection, record.reason)
    }

    private func isRelayEnd(_ code: ReasonCode) -> Bool {
        let ends: [RuntimeReason] = [.closedByClient, .closedByUpstream, .resetByClient, .resetByUpstream]
        return ends.contains { $0.code == code }
    }

    func reasonText(_ code: ReasonCode) -> String {
        simulatedReasons.text(code)
    }

    /// [S14] What is accounted is what was moved.
    private func checkTotals(_ connection: Connection, _ record: ConnectionRecord) {
        let up = UInt64(max(0, (connection.upstream?.sent ?? 0) - connection.preamble.count))
        let down = UInt64(max(0, connection.client.sent - connection.said.count))
        if record.bytesToUpstream != up || record.bytesToClient != down {
            fail(
                "S14: #\(connection.index) moved \(up) and \(down) bytes, recorded \(record.bytesToUpstream)"
                    + " and \(record.bytesToClient)")
        }
        if let totals = connection.totals, totals != (up, down) {
            fail("S14: #\(connection.index) moved \(up) and \(down) bytes, settled \(totals)")
        }
    }

    /// [S4] [S5] The reason fits what the world did.
    private func checkReason(_ connection: Connection, _ code: ReasonCode) {
        var name: String { "S5: #\(connection.index) ended as \(reasonText(code))" }
        let upstream = connection.upstream
        guard let reason = RuntimeReason(rawValue: code.rawValue) else {
            if isQueueEnd(code) {
                checkQueueEnd(connection, code, name)
            } else if connection.isRefusedByStage != code {
                fail("\(name), which no stage said")
            }
            return checkReset(connection, name)
        }
        switch reason {
        case .closedByClient, .closedByUpstream:
            // A peer may still die in the moment in which it is sent the last FIN.
            let complete =
                connection.client.finArrived && upstream?.finArrived == true
                && (connection.client.finSent || connection.client.isDead)
                && (upstream?.finSent == true || upstream?.isDead == true) && upstream?.sent == connection.allUp
                && connection.client.sent - connection.said.count
                    == connection.plan.server.bytes - connection.upgrade.heard
            if !complete { fail("\(name), and not all was passed on") }
            if connection.client.closedBy == .reset || upstream?.closedBy == .reset { fail("\(name), by reset") }
            return
        case .clientTimedOut where isFoundSilent(connection.client), .upstreamTimedOut where isFoundSilent(upstream):
            break
        case .resetByClient, .clientTimedOut:
            if !connection.client.isDead { fail("\(name), and the client is well") }
            if (reason == .clientTimedOut) != (connection.client.causeOfDeath == ErrorNumber.timedOut) {
                fail("\(name), and it died of \(connection.client.causeOfDeath)")
            }
        case .resetByUpstream, .upstreamTimedOut:
            if upstream?.isDead != true { fail("\(name), and the backend is well") }
            if (reason == .upstreamTimedOut) != (upstream?.causeOfDeath == ErrorNumber.timedOut) {
                fail("\(name), and it died of \(upstream?.causeOfDeath ?? 0)")
            }
        case .halfCloseTimeoutClient:
            if !connection.client.finSent, !connection.client.isDead { fail("\(name), and it is not half-closed") }
        case .halfCloseTimeoutUpstream:
            if upstream?.finSent != true, upstream?.isDead != true { fail("\(name), and it is not half-closed") }
        case .connectRefused, .connectTimeout, .connectUnreachable, .connectFailed, .noPort, .noSource,
            .connectForbidden:
            return checkConnectEnd(connection, reason, name)
        case .tooManyConnections, .noSniffBuffer, .noDescriptor:
            checkLimit(connection, reason, name)
        case .memoryShort:
            if connection.attempts > 0 || !control.wasShort { fail("\(name), and there was enough") }
        case .unrouted:
            if connection.attempts > 0, !connection.isMute { fail("\(name), after it had said something") }
        case .drainDeadline:
            if mailbox.order != .stop { fail("\(name), and nobody ordered it") }
        case .noBackend:
            if !connection.choice.isEmpty { fail("\(name), and there were some") }
        case .routeChanged:
            if !scenario.movesRoutes { fail("\(name), and nothing did") }
            if connection.route == nil { fail("\(name), and it never had one") }
        case .crowdedOut:
            if scenario.queue == nil || connection.attempts > 0 { fail("\(name), and it did not wait") }
        case .queueAbandoned:
            if !connection.client.isDead, !connection.client.finArrived { fail("\(name), and it has not") }
            if scenario.queue == nil || connection.attempts > 0 { fail("\(name), and it did not wait") }
        case .upgradeTimeout, .upgradeClosed: checkUpgradeEnd(connection, reason, name)
        case .answerUntaken:
            if connection.client.sent >= connection.said.count { fail("\(name), and it was taken") }
        case .clientLeftEarly, .abandoned:
            if !connection.client.isDead { fail("\(name), and it has not") }
        case .kernelMemory:
            if !connection.metShortage { fail("\(name), and there was enough") }
        case .internalError:
            if !connection.watchFailed { fail(name) }
        case .proxyRejected, .proxyTextRejected:
            if !isRejectedWithCause(connection) { fail("\(name), and too few have had cause to say so") }
            return
        case .backendsFull:
            if connection.attempts > 0 || connection.choice.isEmpty { fail("\(name), and there were some") }
        case .instanceDrained, .routeRemoved, .suspended:
            if !control.hasDrained(reason, connection, self) { fail("\(name), and nobody ordered it") }
        case .idleTimeout:
            let timeout = scenario.idleTimeout
            if timeout == .zero { fail("\(name), and there is no such timeout") }
            if connection.client.toldQuiet < timeout || upstream.map({ $0.toldQuiet < timeout }) ?? true {
                fail("\(name), and a side was not quiet for so long")
            }
            if connection.client.finSent || upstream?.finSent == true { fail("\(name), and it was half-closed") }
        case .killed, .owedProxyHeader, .interceptLoop, .notIntercepted, .backendLoop, .specialDestination,
            .backendDown,
            .primaryBack:
            fail(name)
        }
        checkReset(connection, name)
    }

    /// As the reasons of ``BackendStage`` stand.
    private func isQueueEnd(_ code: ReasonCode) -> Bool {
        let base = simulatedReasons.bases[3]
        return code.rawValue == base + 1 || code.rawValue == base + 2
    }

    /// [S37] Whoever was refused or given up for a queue did not have a backend, and waited for as long as it says.
    private func checkQueueEnd(_ connection: Connection, _ code: ReasonCode, _ name: @autoclosure () -> String) {
        guard let spec = scenario.queue, connection.attempts == 0 else {
            return fail("\(name()), and it need not wait")
        }
        guard code.rawValue == simulatedReasons.bases[3] + 2, let since = connection.queuedAt else { return }
        if clock < since + spec.patience.nanoseconds { fail("\(name()), before its time was over") }
    }

    private func checkReset(_ connection: Connection, _ name: @autoclosure () -> String) {
        if connection.client.closedBy != .reset, !connection.client.isDead {
            fail("\(name()), and the client saw no reset")
        }
        guard let upstream = connection.upstream, connection.connectError == 0 else { return }
        if upstream.closedBy != .reset, !upstream.isDead { fail("\(name()), and the backend saw no reset") }
    }

    private func checkConnectEnd(_ connection: Connection, _ reason: RuntimeReason, _ name: @autoclosure () -> String) {
        let expected: RuntimeReason =
            switch connection.connectError {
            case ErrorNumber.connectionRefused, ErrorNumber.connectionReset: .connectRefused
            case ErrorNumber.timedOut: .connectTimeout
            case ErrorNumber.networkUnreachable, ErrorNumber.hostUnreachable: .connectUnreachable
            case ErrorNumber.addressNotAvailable: .noPort
            case ErrorNumber.noSuchSource: .noSource
            case ErrorNumber.tooManyFiles: .noDescriptor
            case ErrorNumber.notPermitted: .connectForbidden
            default: .connectFailed
            }
        if reason != expected { fail("\(name()), and the last error was \(connection.connectError)") }
        let isLast = connection.tried.count == connection.plan.candidates.count
        if !isLast, !isLimited { fail("\(name()), and there was one more to try") }
        if connection.client.closedBy != .reset { fail("\(name()), and the client saw no reset") }
    }

    /// Candidates may be passed over: some have limits, or were drained.
    private var isLimited: Bool {
        scenario.backendLimits.contains { $0 > 0 } || control.hasDrains || scenario.movesRoutes
    }

    private func checkLimit(_ connection: Connection, _ reason: RuntimeReason, _ name: @autoclosure () -> String) {
        switch reason {
        case .tooManyConnections:
            if connection.attempts > 0 { fail("\(name()), after it was let in") }
            if scenario.connections.count <= scenario.limits.connections { fail("\(name()), and there was room") }
        case .noSniffBuffer:
            if scenario.limits.blocks >= 4 * scenario.connections.count { fail("\(name()), and there were enough") }
            // Half a signature without any block at all is the one thing that can't be kept.
            let isServed = connection.client.sent > connection.said.count
            if isServed, connection.inspection != .open { fail("\(name()), and it was served") }
        default:
            if connection.connectError != ErrorNumber.tooManyFiles { fail("\(name()), and there was one") }
        }
    }

    // MARK: When the worker has ended

    /// [S5] [S15] [S16]
    func checkEnd(_ counters: UnsafePointer<WorkerCounters>) {
        for connection in connections {
            let hasRecord = connection.record != nil
            switch connection.state {
            case .accepted, .refused:
                if !hasRecord { fail("S5: #\(connection.index) never ended") }
            default:
                if hasRecord { fail("S5: #\(connection.index) ended and never began") }
            }
        }
        let left = table.count { $0 != nil }
        if left > 0 { fail("S15: \(left) descriptors are left open") }
        if counters.pointee.read(.buffersInUse) > 0 { fail("S15: blocks are still lent") }
        if counters.pointee.read(.pipesInUse) > 0 { fail("S15: pipes are left lent") }
        if counters.pointee.read(.active) > 0 { fail("S15: the worker counts connections that are over") }
        checkCounters(counters)
        checkHolds()
        checkCells()
        checkCellTotals()
        checkLines()
        if let queue = control.library.queue?.queue, queue.pointee.waiting.current > 0 {
            fail("S37: \(queue.pointee.waiting.current) still wait")
        }
        checkAccounts()
        if statesAlive > 0 { fail("S16: \(statesAlive) stage states are never freed") }
    }

    private func checkCounters(_ counters: UnsafePointer<WorkerCounters>) {
        let records = connections.compactMap(\.record)
        var ends: [UInt16: UInt64] = [:]
        for record in records { ends[record.reason.rawValue, default: 0] += 1 }
        for code in 0..<UInt16(simulatedReasons.count) {
            let counted = counters.pointee.read(ended: ReasonCode(rawValue: code))
            if counted != ends[code] ?? 0 {
                fail("S5: reason \(reasonText(ReasonCode(rawValue: code))) is counted \(counted) times")
            }
        }
        if counters.pointee.read(.accepted) != UInt64(records.count) { fail("S5: accepted is not what ended") }
        let up = records.reduce(0) { $0 + $1.bytesToUpstream }
        let down = records.reduce(0) { $0 + $1.bytesToClient }
        if counters.pointee.read(.bytesToUpstream) != up || counters.pointee.read(.bytesToClient) != down {
            fail("S14: the byte counters are not the sum of the records")
        }
        if counters.pointee.read(.connectAttempts) != UInt64(stats.connects) {
            fail("S5: connect attempts are miscounted")
        }
        let retries = connections.reduce(0) { $0 + max(0, $1.attempts - 1) }
        if counters.pointee.read(.connectRetries) != UInt64(retries) { fail("S5: connect retries are miscounted") }
    }
}
