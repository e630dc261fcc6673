import CLinux
import FilterEgressAccounting
import Pipeline
import PipelineFlows
import PipelineLedger
import PipelineText
import Synchronization

/// Live analysis of flow records: who sends most now (``TopReport``), and alerts (``AlertEngine``).
///
/// Threading: any; nothing here waits but for a lock that is held for short.
package final class FlowWatch: Sendable {
    /// The most queued attempts for the flows thread, which reads them once a second. Further ones are dropped and
    /// counted; a scan is detected long before (R27).
    private static let attemptLimit = 16384

    private struct State: @unchecked Sendable {
        var traffic = TrafficWindow()
        var engine: AlertEngine?
        var adminSocket: String?
        var hasSaidFull = false
    }

    private struct Attempts {
        var waiting: [Attempt] = []
        var dropped: UInt64 = 0
    }

    private let state = Mutex(State())
    private let attempts = Mutex(Attempts())
    private let wantsAttempts = Atomic<Bool>(false)
    private let directory: FlowDirectory
    private let log: ControlLog

    /// - Parameter directory: who instances are.
    package init(_ directory: FlowDirectory, _ log: ControlLog) {
        self.directory = directory
        self.log = log
    }

    // MARK: The control thread's side

    /// Applies new settings. Knowledge of instances stays, unless alerts are switched off.
    package func update(_ program: Program) {
        let interval = program.chains.buffer.compactMap(\.progressInterval).max()
        wantsAttempts.store(program.alerts != nil, ordering: .relaxed)
        state.withLock { state in
            if let interval { state.traffic.setInterval(interval) }
            state.adminSocket = program.node.adminSocket
            guard let alerts = program.alerts else {
                state.engine = nil
                return
            }
            if let engine = state.engine {
                engine.update(alerts)
            } else {
                state.engine = AlertEngine(alerts, now: Instant(nanoseconds: cl_now()))
            }
        }
    }

    /// Its report is made in batches: see ``names``.
    package func tally(_ question: TopQuestion, now: UInt64 = cl_wall_clock()) -> TopTally {
        let view = state.withLock { state in
            let interval = state.traffic.interval.nanoseconds
            let wanted = question.seconds.map { ($0 * 1_000_000_000 + interval - 1) / interval } ?? 4
            return state.traffic.view(buckets: Int(clamping: wanted), now: now)
        }
        return TopTally(question, view)
    }

    /// An instance's addresses, IPv6 first.
    package func addresses(of number: UInt32) -> [IPAddress] { directory.addresses(of: number) }

    /// Who an instance is.
    package func names(_ number: UInt32, _ source: IPAddress) -> FlowNames { directory.find(number, source) }

    /// For `status`: counts by kind, and overflows. Not by instance (R27).
    package struct Counts {
        package struct Kind {
            package let name: String
            package let begun: UInt64
            package let active: Int
        }
        package var kinds: [Kind] = []
        package var instances = 0
        /// Records of instances beyond ``AlertEngine/instanceLimit``.
        package var unwatched: UInt64 = 0
        /// Refused connections that were dropped.
        package var dropped: UInt64 = 0
    }

    /// Nil: alerts are off.
    package var counts: Counts? {
        let dropped = attempts.withLock { $0.dropped }
        return state.withLock { state in
            guard let engine = state.engine else { return nil }
            return Counts(
                kinds: Alert.Kind.allCases.map {
                    .init(name: $0.rawValue, begun: engine.begun[$0] ?? 0, active: engine.active($0))
                }, instances: engine.instances, unwatched: engine.unwatched, dropped: dropped)
        }
    }

    // MARK: The log thread's side

    /// An ended connection.
    package func enqueue(_ record: ConnectionRecord) {
        guard wantsAttempts.load(ordering: .relaxed), let attempt = Attempt(record) else { return }
        attempts.withLock { attempts in
            if attempts.waiting.count < FlowWatch.attemptLimit {
                attempts.waiting.append(attempt)
            } else {
                attempts.dropped += 1
            }
        }
    }

    // MARK: The flows thread's side

    package func take(_ records: [FlowRecord]) {
        let (wall, now) = (cl_wall_clock(), Instant(nanoseconds: cl_now()))
        state.withLock { state in
            for record in records {
                state.traffic.add(record, now: wall)
                state.engine?.observe(record, now)
            }
        }
    }

    /// Once a second: logs alerts.
    package func tick() {
        let waiting = attempts.withLock { attempts in
            defer { attempts.waiting.removeAll() }
            return attempts.waiting
        }
        let now = Instant(nanoseconds: cl_now())
        let (alerts, adminSocket, isFull) = state.withLock { state -> ([Alert], String?, Bool) in
            guard let engine = state.engine else { return ([], nil, false) }
            for attempt in waiting { engine.observe(attempt, now) }
            let isFull = engine.unwatched > 0 && !state.hasSaidFull
            state.hasSaidFull = state.hasSaidFull || isFull
            return (engine.tick(now), state.adminSocket, isFull)
        }
        for alert in alerts {
            let text = AlertText(
                alert: alert, names: directory.find(alert.instance, alert.source), adminSocket: adminSocket,
                addresses: directory.addresses(of: alert.instance))
            log.say("egress_alert", text.message) { text.write(&$0) }
        }
        guard isFull else { return }
        log.say(
            "egress_alerts_full",
            "the alert table is full with \(AlertEngine.instanceLimit) instances: new instances are not watched until "
                + "others are idle")
    }
}
