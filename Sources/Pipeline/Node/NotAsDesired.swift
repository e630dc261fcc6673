import Pipeline
import PipelineLastGood
import PipelineRouting

/// An object of desired state that is not in force as it is wanted, for people.
package struct NotAsDesired {
    /// `org/app/env`; nil: its env is not known.
    package let owner: String?
    /// The name of a route, or the address of an instance.
    package let name: String?
    package let isInstance: Bool
    /// An earlier version of it is in force.
    package let hasEarlier: Bool
}

extension DesiredState {
    /// The next objects of a kind that are not in force as they are wanted, in the order of ids.
    /// - Returns: what to go on behind; nil: that was the last page.
    package func pageOfOthers(
        _ kind: StateKind, behind id: [UInt8]?, count: Int, _ body: (String, NotAsDesired) -> Void
    ) -> [UInt8]? {
        kept.pageOfOthers(kind, behind: id, count: count) { id, text, hasEarlier in
            // Of several by one id, or none that can be read, it is nobody's.
            let fields = try? FlatJSON.read(Array(text), names: ["env_id", "hostname", "overlay_ipv6"])
            body(
                String(decoding: id, as: UTF8.self),
                NotAsDesired(
                    owner: fields?.string("env_id").flatMap(path(of:)),
                    name: fields?.string(kind == .instance ? "overlay_ipv6" : "hostname"),
                    isInstance: kind == .instance, hasEarlier: hasEarlier))
        }
    }

    private func path(of env: String) -> String? {
        guard let text = kept.text(.env, Array(env.utf8)),
            let fields = try? FlatJSON.read(text, names: ["org_id", "app_id"]),
            let org = fields.string("org_id"), let app = fields.string("app_id")
        else { return nil }
        return EnvName(org: org, app: app, env: env).path
    }
}
