import CLinux
import Pipeline
import PipelineHost
import PipelineRouting
import PipelineRuntime
import PipelineText

/// The rules that a node watches, and the mode.
struct InterceptionWish: Sendable, Equatable {
    let mode: InterceptRules
    private(set) var rules: EgressRules

    /// Equal except for the interface bindings.
    func differsByBindings(from other: InterceptionWish?) -> Bool {
        guard var same = other, same != self else { return false }
        same.rules.bound = rules.bound
        return same == self
    }

    /// Nil without a problem: the config has no intercepting listener, or says `off`.
    /// - Parameters:
    ///   - settings: those that the node runs with; `mark` needs a new start.
    ///   - bound: the bindings of desired state; ignored in `watch` mode.
    static func of(
        _ program: Program, _ settings: NodeSettings, _ bound: [BoundAddress] = []
    ) -> (wish: InterceptionWish?, problem: String?) {
        let asked = program.node.interceptRules
        guard asked != .off, !program.node.interceptInterfaces.isEmpty,
            program.listeners.contains(where: \.mode.intercepts)
        else { return (nil, nil) }
        do throws(EgressRules.Problem) {
            var wish = InterceptionWish(
                mode: asked ?? .watch, rules: try EgressRules(program, mark: settings.mark))
            if wish.mode == .manage { wish.rules.bound = bound }
            return (wish, nil)
        } catch {
            // The site may have its own rules, and did not ask for a watch.
            guard asked != nil else { return (nil, nil) }
            return (nil, "interception rules are not watched: \(error)")
        }
    }
}

/// What interception is like, for `status`.
package struct InterceptionReport: Sendable, Equatable {
    package enum Status: String, Sendable {
        case unknown, lost
        case inForce = "in_force"
    }

    package var mode = InterceptRules.off
    package var status = Status.unknown
    package var faults: [String] = []
    package var warnings: [String] = []
    /// Why the rules can't be checked; nil: they were.
    var untold: String?
    /// Why the rules can't be restored; nil: not tried, or restored.
    package var unapplied: String?

    /// By the last check: installing the rules would repair it.
    var isMending = false
    /// When the node restores the rules next, if another program keeps removing them.
    var nextTry: Instant?

    /// No watch.
    package static let off = InterceptionReport()

    private func contested(_ now: Instant) -> String {
        guard let nextTry, mode == .manage else { return "" }
        return "; another program keeps removing the rules: the node restores them again in "
            + "\((nextTry.since(now).milliseconds + 999) / 1000) s"
    }

    /// As `status` shows it, with what to do.
    package func problems(config: String, _ now: Instant) -> [String] {
        var texts: [String] = []
        if status == .lost {
            let hand = isMending ? "; `pipelined egress rules \(config) --apply`" : ""
            texts.append(
                "interception_lost: \(faults.joined(separator: "; ")): TCP of workloads may bypass the relay"
                    + "\(contested(now))\(hand)")
        }
        return texts + [untold, unapplied].compactMap { $0 }
    }
}

/// Checks the interception rules after events and periodically, and restores them in `manage` mode.
///
/// Threading: the watch's thread, which waits for `nft` and `ip`.
struct InterceptionLook {
    /// The interval of periodic checks besides events.
    static let interval = TimeSpan.seconds(30)
    /// Manual changes come in several steps, so a report waits this long. Restoring does not wait.
    private static let settling = TimeSpan.milliseconds(200)
    /// Checks take at most a tenth of the time.
    private static let rest: UInt64 = 10
    /// After this many restores in a row, another program is assumed to keep removing the rules.
    private static let patience = 3
    private static let longestPause = TimeSpan.seconds(60)
    /// After this long without a removal, the count starts again.
    private static let calm = TimeSpan.seconds(120)

    private let log: ControlLog
    private let config: String
    private let isGivenUp: @Sendable () -> Bool
    private(set) var report = InterceptionReport()
    private var wish: InterceptionWish?
    private var monitor: InterceptMonitor?
    /// When the next check is due; nil: nothing is watched.
    private(set) var nextLook: Instant?
    private var notBefore = Instant(nanoseconds: 0)
    /// No check of these rules was complete yet: missing ones were not lost.
    private var isNew = true
    private var lostAt: Instant?
    private var warned: Set<String> = []
    /// The bindings in the sets, as filled by this node; nil: unknown.
    private var inSets: [BoundAddress]?
    // How often rules were put back without a calm time between.
    private var streak = 0
    private var lastApply: Instant?

    init(_ log: ControlLog, config: String, isGivenUp: @escaping @Sendable () -> Bool) {
        (self.log, self.config, self.isGivenUp) = (log, config, isGivenUp)
    }

    var descriptors: [Descriptor] { monitor?.descriptors ?? [] }

    /// Does what is due.
    mutating func advance(_ wanted: InterceptionWish?, _ now: Instant) {
        if let wanted, wanted.differsByBindings(from: wish) {
            wish = wanted
            nextLook = max(now, notBefore)
        } else if wanted != wish {
            begin(wanted, now)
        }
        guard let wish else { return }
        if monitor?.take() == true {
            if !wish.rules.bound.isEmpty { inSets = nil }
            // Restoring waits only while another program keeps removing the rules: meanwhile workloads could bypass the
            // relay.
            let soon =
                wish.mode == .manage && retryAt == nil ? now : max(now + InterceptionLook.settling, notBefore)
            nextLook = min(nextLook ?? soon, soon)
        }
        guard let due = nextLook, due <= now else { return }
        look(wish)
        let end = Instant(nanoseconds: cl_now())
        let took = end.since(now).nanoseconds
        notBefore = end + max(InterceptionLook.settling, TimeSpan(nanoseconds: took * InterceptionLook.rest))
        nextLook = end + InterceptionLook.interval
        guard report.isMending, wish.mode == .manage else { return }
        nextLook = max(notBefore, min(end + InterceptionLook.interval, retryAt ?? end))
        report.nextTry = retryAt == nil ? nil : nextLook
    }

    private mutating func begin(_ wanted: InterceptionWish?, _ now: Instant) {
        if let before = wish, wanted == nil, before.mode == .manage {
            log.say(
                "interception_left",
                "interception rules are no longer watched; they stay in force, and refuse TCP of workloads that no "
                    + "listener accepts; `pipelined egress rules \(config) --remove` removes them")
        }
        wish = wanted
        isNew = true
        (streak, lastApply, inSets) = (0, nil, nil)
        // Lost rules stay lost until a check finds them.
        let isLost = report.status == .lost && wanted != nil
        report = InterceptionReport(
            mode: wanted?.mode ?? .off, status: isLost ? .lost : .unknown, faults: isLost ? report.faults : [])
        if !isLost { lostAt = nil }
        warned = []
        // Opened before the first check, so that no change is missed.
        monitor = wanted.map { InterceptMonitor(table: $0.rules.table) }
        nextLook = wanted == nil ? nil : now
    }

    private func kernel(_ wish: InterceptionWish) -> EgressKernel {
        var tool = Tool(patience: .seconds(10))
        tool.isGivenUp = isGivenUp
        return EgressKernel(wish.rules, tool: tool)
    }

    private mutating func look(_ wish: InterceptionWish) {
        do throws(Tool.Problem) {
            var missing = try kernel(wish).missing()
            // Restored before anything else is asked: until then connections bypass the relay.
            if wish.mode == .manage, isDue {
                if !missing.isEmpty { missing = try putBack(wish, missing) } else { bind(wish) }
            }
            note(try kernel(wish).surroundings(missing))
        } catch {
            guard !isGivenUp() else { return }
            let text =
                "can't check the interception rules: \(InterceptionLook.line(error)); install `nft` and `ip`, and "
                + "give the node CAP_NET_ADMIN (systemd: AmbientCapabilities=); the next check is in "
                + "\(InterceptionLook.interval.milliseconds / 1000) s"
            if report.untold != text { log.say("interception_unwatched", text) }
            (report.untold, report.status) = (text, .unknown)
        }
    }

    // MARK: Reports

    private static func line(_ problem: Tool.Problem) -> String {
        problem.description.split(separator: "\n").joined(separator: "; ")
    }

    private mutating func note(_ found: EgressKernel.Findings) {
        (report.isMending, report.nextTry) = (!found.missing.isEmpty, nil)
        report.untold = nil
        if !report.isMending, report.mode == .watch || inSets == wish?.rules.bound { report.unapplied = nil }
        if found.faults.isEmpty {
            if report.status == .lost { sayRestored(by: "others") }
            report.status = .inForce
            report.faults = []
        } else {
            sayLost(found.faults, isMending: false)
        }
        isNew = false
        for warning in found.warnings where warned.insert(warning).inserted { log.say("interception_warning", warning) }
        warned.formIntersection(found.warnings)
        report.warnings = found.warnings
    }

    private mutating func sayLost(_ faults: [String], isMending: Bool) {
        defer { (report.status, report.faults) = (.lost, faults) }
        guard report.status != .lost || report.faults != faults else { return }
        lostAt = lostAt ?? Instant(nanoseconds: cl_now())
        let mode = report.mode
        let hand = report.isMending && mode == .watch ? "; `pipelined egress rules \(config) --apply`" : ""
        let remedy = isMending ? "; the node restores the rules" : hand
        log.say("interception_lost", "TCP of workloads may bypass the relay\(remedy)") { line in
            line.list("missing", faults) { $0.string($1) }
            line.field("rules", mode.rawValue)
        }
    }

    private mutating func sayRestored(by whom: StaticString) {
        let lost = lostAt.map { Instant(nanoseconds: cl_now()).since($0).milliseconds }
        log.say("interception_restored", "interception rules are in force again") { line in
            line.field("by", "\(whom)")
            if let lost { line.field("after_ms", lost) }
        }
        lostAt = nil
    }

    // MARK: Restoring

    /// Backs off when another manager removes the rules: at once at first, then after doubling pauses.
    private var retryAt: Instant? {
        guard let lastApply, streak >= InterceptionLook.patience else { return nil }
        let doubled = TimeSpan.seconds(1 << UInt32(min(6, streak - InterceptionLook.patience + 1)))
        return lastApply + min(doubled, InterceptionLook.longestPause)
    }

    private var isDue: Bool { retryAt.map { $0 <= Instant(nanoseconds: cl_now()) } ?? true }

    /// - Returns: what is missing still.
    private mutating func putBack(_ wish: InterceptionWish, _ missing: [String]) throws(Tool.Problem) -> [String] {
        if !isNew { sayLost(missing, isMending: true) }
        countTry()
        guard apply(wish) else { return missing }
        let after = try kernel(wish).missing()
        if after.isEmpty { sayPutBack(missing) }
        return after
    }

    /// The rules are there, but the bindings differ from desired state, or another program changed the table.
    private mutating func bind(_ wish: InterceptionWish) {
        let wanted = wish.rules.bound
        guard inSets != wanted else { return }
        // At a start the content of the sets is unknown.
        let isOfOthers = inSets == nil && !isNew
        if isOfOthers { countTry() }
        guard apply(wish), !(isNew && wanted.isEmpty) else { return }
        log.say("interception_bound", "instances' addresses are bound to their interfaces, as in desired state") {
            $0.field("addresses", wanted.count)
        }
    }

    private mutating func countTry() {
        let now = Instant(nanoseconds: cl_now())
        let isCalm = lastApply.map { now.since($0) > InterceptionLook.calm } ?? true
        streak = isCalm ? 1 : streak + 1
        lastApply = now
        guard streak == InterceptionLook.patience else { return }
        log.say(
            "interception_contested",
            "another program keeps removing the interception rules: the node restores them at growing intervals, up "
                + "to \(InterceptionLook.longestPause.milliseconds / 1000) s; find that program, or use `intercept "
                + "rules watch`; after \(InterceptionLook.calm.milliseconds / 1000) s without a removal the node "
                + "restores them at once again")
    }

    private mutating func apply(_ wish: InterceptionWish) -> Bool {
        do throws(Tool.Problem) {
            try kernel(wish).apply()
        } catch {
            guard !isGivenUp() else { return false }
            let text = "can't install the interception rules: \(InterceptionLook.line(error)); the node tries again"
            if report.unapplied != text { log.say("interception_not_restored", text) }
            report.unapplied = text
            return false
        }
        // Discards events of our own changes.
        _ = monitor?.take()
        inSets = wish.rules.bound
        return true
    }

    private mutating func sayPutBack(_ missing: [String]) {
        if isNew {
            // A start or a reload does not count as a removal.
            streak = 0
            log.say("interception_applied", "the interception rules of this config were installed") { line in
                line.list("missing", missing) { $0.string($1) }
            }
        }
        guard report.status == .lost else { return }
        report.status = .inForce
        sayRestored(by: "node")
    }
}
