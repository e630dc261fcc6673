import FilterCatalog
import Glibc
import Pipeline
import PipelineLanguage
import PipelineLastGood
import PipelineRouting
import PipelineState

/// What a node of a config has kept, looked at without its lock.
package enum LastGoodSight {
    /// - Parameter damage: what a start would do with it.
    case kept(LastGood, damage: [String])
    /// The config has no `state`, or the directory is not there, or nothing was applied from it yet.
    case nothing(damage: [String])
    case unreadable(String)

    package init(_ directory: String?) {
        guard let directory else {
            self = .nothing(damage: [])
            return
        }
        do throws(StateFault) {
            let (kept, notices) = try LastGood.look(at: directory)
            let damage = notices.filter { $0.event != "state_created" }.map { "a start would find damage: \($0.text)" }
            self = kept.isEmpty ? .nothing(damage: damage) : .kept(kept, damage: damage)
        } catch {
            if case .failed(directory, _, ENOENT) = error {
                self = .nothing(damage: [])
            } else {
                self = .unreadable(error.message)
            }
        }
    }
}

/// What a start of a config would make of it, for commands: with the last good state, if there is one that can be read.
extension ConfigLoader {
    /// For `check`: what would be left out and who would be served for nobody, as the next start decides.
    package static func check(
        _ text: [UInt8], file: String, filters: [any Filter.Type] = catalog,
        readState: ReadState = ConfigLoader.readStateFile
    ) -> LoadedConfig {
        var read = read(text, file: file, filters: filters, readState: readState, keepsState: true)
        guard let program = read.compilation.program, program.node.stateDirectory != nil else {
            return noted(loadFresh(&read), isFirst: true)
        }
        switch LastGoodSight(read.compilation.hasErrors ? nil : program.node.stateDirectory) {
        case .kept(let kept, let damage):
            read.compilation.note(damage)
            var fault: String?
            guard let loaded = load(&read, program, { _ in kept }, &fault) else { break }
            return judged(loaded, by: kept)
        case .nothing(let damage): read.compilation.note(damage)
        case .unreadable(let why):
            read.compilation.report(
                Diagnostic(
                    .note, at: SourceSpan(0, 0),
                    "the last good state can't be read, so routes are judged as at a first start: \(why)",
                    help: ["run `pipelined check` as the node's user or as root"]))
        }
        read.update = nil
        read.readState(read.seed, readState)
        return noted(loadFresh(&read), isFirst: true)
    }

    private static func judged(_ loaded: LoadedConfig, by kept: LastGood) -> LoadedConfig {
        var loaded = loaded
        let revision = kept.last?.revision.map { ", revision \($0)" } ?? ""
        loaded.compilation.report(
            Diagnostic(
                .note, at: SourceSpan(0, 0),
                "routes are judged by the last good state in \(kept.directory)\(revision): who had a name keeps it"))
        guard let desired = loaded.node?.desired?.look else { return loaded }
        loaded.leftOut = desired.otherwise
        let problems = desired.problems.list
        for problem in problems.prefix(shownProblems) {
            loaded.compilation.report(Diagnostic(.warning, at: SourceSpan(0, 0), "desired state: \(problem)"))
        }
        if problems.count > shownProblems {
            loaded.compilation.report(
                Diagnostic(
                    .warning, at: SourceSpan(0, 0),
                    "desired state: \(problems.count - shownProblems) more problems like these are not shown"))
        }
        return noted(loaded, isFirst: false)
    }

    /// Lists what is served for nobody (R5).
    private static func noted(_ loaded: LoadedConfig, isFirst: Bool) -> LoadedConfig {
        guard loaded.leftOut > 0, let contested = loaded.node?.routing.census.contested else { return loaded }
        var loaded = loaded
        let when = isFirst ? " at a first start" : ""
        for (thing, envs) in contested.prefix(shownProblems) {
            let isName = if case .name = thing { true } else { false }
            let shown = envs.prefix(shownEnvs).joined(separator: ", ")
            let rest = envs.count > shownEnvs ? " and \(envs.count - shownEnvs) more" : ""
            loaded.compilation.report(
                Diagnostic(
                    .warning, at: loaded.compilation.routesFile?.span ?? SourceSpan(0, 0),
                    "\(thing) is served for nobody\(when): \(shown)\(rest) ask for it, and "
                        + (isName ? "no entry of `hostnames` says whose it is" : "none of them had it before"),
                    help: [isName ? "add an entry of `hostnames` for it" : "leave it to one of them"]))
        }
        if contested.count > shownProblems {
            loaded.compilation.report(
                Diagnostic(
                    .warning, at: loaded.compilation.routesFile?.span ?? SourceSpan(0, 0),
                    "\(contested.count - shownProblems) more names and ports are served for nobody\(when)"))
        }
        return loaded
    }

    private static let shownEnvs = 4
}

extension Compilation {
    fileprivate mutating func note(_ damage: [String]) {
        for text in damage { report(Diagnostic(.warning, at: SourceSpan(0, 0), text)) }
    }
}
