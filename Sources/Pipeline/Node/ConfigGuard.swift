import Pipeline
import PipelineLanguage

/// Against a config that loses by mistake what it served: a `route file` that is empty or cut, an `include` pattern that
/// matches nothing any more, a file without any listener. A program may write them, and be stopped in the middle (R29).
/// Whoever means it confirms it.
///
/// Threading: the control thread.
struct ConfigGuard {
    /// What a config has of it.
    struct Reading {
        /// The names of each `route file`, by path.
        var names: [String: Int] = [:]
        /// The files of each `include` with a pattern, by pattern.
        var files: [String: Int] = [:]
        /// `listen` and `expose` lines.
        var listeners = 0
    }

    /// A file of fewer names may lose all but one.
    private static let fewNames = 10

    private var last = Reading()

    /// Why it is refused; nil: it may be applied.
    func refusal(of new: Reading, isConfirmed: Bool) -> String? {
        guard !isConfirmed, let loss = loss(new) else { return nil }
        return "\(loss); to do that, run `pipelined reload --confirm`"
    }

    mutating func applied(_ new: Reading) { last = new }

    private func loss(_ new: Reading) -> String? {
        // What the config doesn't name any more, somebody has taken out of it.
        for (path, count) in new.names.sorted(by: { $0.key < $1.key }) {
            guard let before = last.names[path], ConfigGuard.isLost(before, count) else { continue }
            return "the route file \(path) has \(count == 0 ? "no names" : "\(count) of \(before) names") any more, "
                + "and routes of the others would go"
        }
        for (pattern, count) in new.files.sorted(by: { $0.key < $1.key }) {
            guard count == 0, let before = last.files[pattern], before > 0 else { continue }
            return "`include \(pattern)` matches no file any more (it had \(before)), and what they say would go"
        }
        guard new.listeners == 0, last.listeners > 0 else { return nil }
        return "the config has no `listen` and no `expose` line any more, and every listener would be closed"
    }

    private static func isLost(_ before: Int, _ now: Int) -> Bool {
        now == 0 ? before > 0 : before >= fewNames && now < before / 2
    }
}

extension ConfigGuard.Reading {
    init(_ compilation: Compilation) {
        for route in compilation.routes {
            guard let map = route.map else { continue }
            let file = compilation.source.file(of: map.path.span.start)
            names[configPath(map.path.value, from: file)] = map.count
        }
        for pattern in compilation.patterns { files[pattern.pattern] = pattern.files }
        listeners = (compilation.program?.listeners.count ?? 0) + (compilation.program?.exposes.count ?? 0)
    }
}
