import CLinux
import Pipeline
import PipelineHost
import PipelineLanguage
import PipelineLastGood
import PipelineRouting
import PipelineState

/// What the source of routes says, for a node that keeps desired state.
struct ReadUpdate {
    var update: StateUpdate?
    var problems = RouteProblems()
    /// Why there is none; nil: there is, or the source tells by itself.
    var failure: String?

    /// - Parameter bytes: of a document, or of what is accepted.
    static func read(
        _ bytes: [UInt8], _ path: String, as accepts: StateUpdate.Acceptance = .document
    ) -> ReadUpdate {
        let (update, problems) = StateUpdate.read(copying: bytes, as: accepts)
        let fatal = problems.list.last { $0.severity == .fatal }
        return ReadUpdate(
            update: update, problems: problems, failure: fatal.map { "the state file \(path) can't be used: \($0)" })
    }

    /// Nothing: the config names no source.
    static var nothing: ReadUpdate {
        read(Array("{\"format\":\"\(StateDocument.format)\",\"envs\":[],\"instances\":[],\"routes\":[]}".utf8), "")
    }
}

extension ReadConfig {
    var source: RouteSource {
        if compilation.takesPushes { return .push }
        return stateFile.map { .file($0.path) } ?? .none
    }

    mutating func readUpdate(_ read: ConfigLoader.ReadState) {
        if let named = compilation.routesFile {
            let path = configPath(named.value, from: compilation.source.file(of: named.span.start))
            stateFile = (path, named)
            do throws(FileError) {
                update = ReadUpdate.read(try see(path, read), path)
            } catch {
                update = ReadUpdate(
                    failure: "can't read the state file \(error.path): \(error.problem); \(error.remedy)")
            }
        } else if !compilation.takesPushes {
            update = .nothing
        }
    }

    mutating func nameStateFile() {
        guard let named = compilation.routesFile else { return }
        stateFile = (configPath(named.value, from: compilation.source.file(of: named.span.start)), named)
    }

    /// Objects that are in no change, since nobody can tell which they are. Why there is no update at all is said
    /// elsewhere.
    mutating func reportUnread() {
        if let update, update.update != nil { report(update.problems) }
    }
}

extension ConfigLoader {
    /// Opens the store of a node.
    package typealias OpenKept = (String) throws(StateFault) -> LastGood

    /// Goes on where the node ended, and takes what its source says now.
    /// - Parameter takesSource: false: not if something was kept, for a look at what is in force.
    static func restore(
        _ read: inout ReadConfig, _ program: Program, _ open: OpenKept, _ fault: inout String?,
        takesSource: Bool = true
    ) -> (RoutingState, DesiredState)? {
        guard let directory = program.node.stateDirectory else { return nil }
        let kept: LastGood
        do throws(StateFault) {
            kept = try open(directory)
        } catch {
            let text = "state: \(error.message)"
            switch error {
            // Whoever has it serves, or knows more: this node must not contradict.
            case .locked, .newer: read.compilation.report(Diagnostic(.error, at: SourceSpan(0, 0), text))
            default:
                fault = error.message
                read.compilation.report(
                    Diagnostic(
                        .warning, at: SourceSpan(0, 0), text,
                        help: ["until then the node keeps nothing: after a restart who had a name is not known"]))
            }
            return nil
        }
        let routing = RoutingState(seed: kept.seed)
        ListenerPlan.prepare(routing, for: program)
        let desired = DesiredState(kept, read.source)
        let wasEmpty = kept.isEmpty
        var ofBlocks = ApplyReport()
        let blocks = read.blocks
        desired.note(kept.restore(routing) { ofBlocks = routing.apply(together: [blocks]) })
        read.report(applied: ofBlocks.problems)
        read.reportUnread()
        guard let update = read.update, takesSource || wasEmpty else { return (routing, desired) }
        if let refusal = take(update, desired, routing) {
            desired.refusal = refusal
            let isNeeded = wasEmpty && desired.kept.setAside == nil
            let remedy =
                isNeeded ? "a node that has applied nothing yet needs it" : "the node serves what it applied last"
            read.compilation.report(
                Diagnostic(
                    isNeeded && read.source != .none ? .error : .warning,
                    at: read.stateFile?.place.span ?? SourceSpan(0, 0), refusal, help: [remedy]))
        }
        return (routing, desired)
    }

    /// Why it is not in force; nil: it is.
    private static func take(_ read: ReadUpdate, _ desired: DesiredState, _ routing: RoutingState) -> String? {
        guard let update = read.update else { return read.failure }
        do throws(UpdateRefusal) {
            // Also without a source: a line that is gone by mistake must not take away what was pushed (R29).
            let prepared = try desired.kept.prepare(update, from: desired.source.name, now: cl_wall_clock())
            do throws(StateFault) { try desired.kept.keep(prepared) } catch { return error.message }
            desired.note(desired.kept.apply(prepared, to: routing))
            return nil
        } catch {
            if error.stopsStream, case .file = desired.source { desired.heldFile = HeldFile(since: cl_wall_clock()) }
            return "\(error.problem); \(error.remedy)"
        }
    }
}

/// Desired state on its way from the loader to the node, which alone may hold it: with it goes the lock of its store.
package final class StateInHand {
    private var state: DesiredState?
    init(_ state: DesiredState) { self.state = state }

    /// Without taking it.
    var look: DesiredState? { state }

    func take() -> DesiredState? {
        defer { state = nil }
        return state
    }
}
