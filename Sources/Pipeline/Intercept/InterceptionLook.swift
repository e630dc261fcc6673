import CLinux
import Pipeline
import PipelineHost
import PipelineRouting
import PipelineRuntime
import PipelineText

/// What a node is to look after: the rules of what it runs, and how.
struct InterceptionWish: Sendable, Equatable {
    let mode: InterceptRules
    private(set) var rules: EgressRules

    /// The same but for who is bound to which interface.
    func differsByBindings(from other: InterceptionWish?) -> Bool {
        guard var same = other, same != self else { return false }
        same.rules.bound = rules.bound
        return same == self
    }

    /// Nil without a problem: the config intercepts nothing, or says `off`.
    /// - Parameters:
    ///   - settings: those that the node runs with; `mark` needs a new start.
    ///   - bound: what desired state binds; who only watches has nothing to do with it.
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
            // Rules of its own, which nobody asked us to know.
            guard asked != nil else { return (nil, nil) }
            return (nil, "the rules are not looked after: \(error)")
        }
    }
}

/// What is known of interception, for `status`.
package struct InterceptionReport: Sendable, Equatable {
    package enum State: String, Sendable {
        case unknown, lost
        case inForce = "in_force"
    }

    package var mode = InterceptRules.off
    package var state = State.unknown
    package var faults: [String] = []
    package var warnings: [String] = []
    /// Why nobody can tell; nil: it was looked.
    var untold: String?
    /// Why the rules can't be put back; nil: nobody tried, or they were.
    package var unapplied: String?

    /// By the newest look: rules put in force would mend it.
    var isMending = false
    /// When the node tries next, if somebody takes the rules away again and again.
    var nextTry: Instant?

    /// Nobody looks.
    package static let off = InterceptionReport()

    private func contested(_ now: Instant) -> String {
        guard let nextTry, mode == .manage else { return "" }
        return "; somebody takes the rules away again and again: the node tries again in "
            + "\((nextTry.since(now).milliseconds + 999) / 1000) s"
    }

    /// As `status` shows it, with what to do.
    package func problems(config: String, _ now: Instant) -> [String] {
        var texts: [String] = []
        if state == .lost {
            let hand = isMending ? "; `pipelined egress rules \(config) --apply`" : ""
            texts.append(
                "interception_lost: \(faults.joined(separator: "; ")): TCP of workloads may go around the relay"
                    + "\(contested(now))\(hand)")
        }
        return texts + [untold, unapplied].compactMap { $0 }
    }
}

/// Looks whether the rules are in force when there is reason to, and puts them back if it is told to.
///
/// Threading: the watch's thread, which waits for `nft` and `ip`.
struct InterceptionLook {
    /// The safety net under the kernel's events.
    static let interval = TimeSpan.seconds(30)
    /// Who applies rules by hand makes several changes: in between there is nothing to report. Who puts them back waits for nobody.
    private static let settling = TimeSpan.milliseconds(200)
    /// No more than a tenth of the time is spent on looking.
    private static let rest: UInt64 = 10
    /// Put back so often at once, they are taken away by somebody who will do it again.
    private static let patience = 3
    private static let longestPause = TimeSpan.seconds(60)
    /// After so long without it, the next time is the first.
    private static let calm = TimeSpan.seconds(120)

    private let log: ControlLog
    private let config: String
    private let isGivenUp: @Sendable () -> Bool
    private(set) var report = InterceptionReport()
    private var wish: InterceptionWish?
    private var monitor: InterceptMonitor?
    /// When the next look is due; nil: nothing is watched.
    private(set) var nextLook: Instant?
    private var notBefore = Instant(nanoseconds: 0)
    /// No look of this wish was complete yet: what is missing was not lost.
    private var isNew = true
    private var lostAt: Instant?
    private var warned: Set<String> = []
    /// What the sets hold, as far as this node has filled them; nil: not known, since others may have since.
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
            // Who puts back waits only where somebody takes away again and again: until then nothing holds a workload back.
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
                "the rules are looked after no more; they stay in force, and refuse TCP of workloads that nobody takes: "
                    + "`pipelined egress rules \(config) --remove` takes them off")
        }
        wish = wanted
        isNew = true
        (streak, lastApply, inSets) = (0, nil, nil)
        // What was lost stays so until a look says otherwise.
        let isLost = report.state == .lost && wanted != nil
        report = InterceptionReport(
            mode: wanted?.mode ?? .off, state: isLost ? .lost : .unknown, faults: isLost ? report.faults : [])
        if !isLost { lostAt = nil }
        warned = []
        // Before the first look: what changes meanwhile is not missed.
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
            // Before anything else is asked: until then connections go around.
            if wish.mode == .manage, isDue {
                if !missing.isEmpty { missing = try putBack(wish, missing) } else { bind(wish) }
            }
            note(try kernel(wish).surroundings(missing))
        } catch {
            guard !isGivenUp() else { return }
            let text =
                "whether interception is in force can't be told: \(InterceptionLook.line(error)); `nft` and `ip` must be there, "
                + "and have CAP_NET_ADMIN as well (systemd: AmbientCapabilities=); it is tried again every "
                + "\(InterceptionLook.interval.milliseconds / 1000) s"
            if report.untold != text { log.say("interception_unwatched", text) }
            (report.untold, report.state) = (text, .unknown)
        }
    }

    // MARK: What is said

    private static func line(_ problem: Tool.Problem) -> String {
        problem.description.split(separator: "\n").joined(separator: "; ")
    }

    private mutating func note(_ found: EgressKernel.Findings) {
        (report.isMending, report.nextTry) = (!found.missing.isEmpty, nil)
        report.untold = nil
        if !report.isMending, report.mode == .watch || inSets == wish?.rules.bound { report.unapplied = nil }
        if found.faults.isEmpty {
            if report.state == .lost { sayRestored(by: "others") }
            report.state = .inForce
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
        defer { (report.state, report.faults) = (.lost, faults) }
        guard report.state != .lost || report.faults != faults else { return }
        lostAt = lostAt ?? Instant(nanoseconds: cl_now())
        let mode = report.mode
        let hand = report.isMending && mode == .watch ? "; `pipelined egress rules \(config) --apply`" : ""
        let remedy = isMending ? "; the rules are put back" : hand
        log.say("interception_lost", "TCP of workloads may go around the relay\(remedy)") { line in
            line.list("missing", faults) { $0.string($1) }
            line.field("rules", mode.rawValue)
        }
    }

    private mutating func sayRestored(by whom: StaticString) {
        let lost = lostAt.map { Instant(nanoseconds: cl_now()).since($0).milliseconds }
        log.say("interception_restored", "rules are in force again") { line in
            line.field("by", "\(whom)")
            if let lost { line.field("after_ms", lost) }
        }
        lostAt = nil
    }

    // MARK: Putting back

    /// A fight with another manager must not keep either busy: nobody waits at first, then twice as long each time.
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

    /// The rules are there; desired state says something else of interfaces than their sets, or others have changed the table.
    private mutating func bind(_ wish: InterceptionWish) {
        let wanted = wish.rules.bound
        guard inSets != wanted else { return }
        // At a start nobody knows what the sets hold.
        let isOfOthers = inSets == nil && !isNew
        if isOfOthers { countTry() }
        guard apply(wish), !(isNew && wanted.isEmpty) else { return }
        log.say("interception_bound", "instances' addresses are bound to their interfaces, as desired state has them") {
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
            "somebody takes the rules away again and again: from now on they are put back after longer and longer "
                + "times, up to \(InterceptionLook.longestPause.milliseconds / 1000) s; find out who, or use "
                + "`intercept rules watch`; after \(InterceptionLook.calm.milliseconds / 1000) s without it the next time is the "
                + "first again")
    }

    private mutating func apply(_ wish: InterceptionWish) -> Bool {
        do throws(Tool.Problem) {
            try kernel(wish).apply()
        } catch {
            guard !isGivenUp() else { return false }
            let text = "the rules can't be put in force: \(InterceptionLook.line(error)); it is tried again"
            if report.unapplied != text { log.say("interception_not_restored", text) }
            report.unapplied = text
            return false
        }
        // Our own changes are no news; what others do from here on is.
        _ = monitor?.take()
        inSets = wish.rules.bound
        return true
    }

    private mutating func sayPutBack(_ missing: [String]) {
        if isNew {
            // A start or a reload is nobody's fight.
            streak = 0
            log.say("interception_applied", "the rules of this config were put in force") { line in
                line.list("missing", missing) { $0.string($1) }
            }
        }
        guard report.state == .lost else { return }
        report.state = .inForce
        sayRestored(by: "node")
    }
}
