import Pipeline
import Testing

@Suite("An env is org, app and env together") struct EnvNameTests {
    @Test("R5: paths of different envs differ, whatever their ids hold") func paths() {
        let parts = ["a", "b", "a/b", "b/a", "a%2Fb", "a%b", "/", "%", "%2F"]
        let all = parts.flatMap { org in
            parts.flatMap { app in parts.map { EnvName(org: org, app: app, env: $0) } }
        }
        #expect(Set(all.map(\.path)).count == all.count)
        #expect(all.allSatisfy { EnvName(path: $0.path) == $0 })
        #expect(["", "acme", "acme/shop", "a/b/c/d"].allSatisfy { EnvName(path: $0) == nil })
        #expect(EnvName(org: "acme", app: "shop", env: "prod").path == "acme/shop/prod")
        #expect(EnvName(org: "a/b", app: "c%", env: "d").path == "a%2Fb/c%25/d")
        #expect(EnvName(org: "", app: "", env: "").path == "")
    }
}
