import Pipeline
import PipelineHealth
import PipelineRouting

/// Follows what is served, as a node does at each publication.
final class Follower {
    private let program: Program
    private let state: RoutingState
    private let prober: HealthProber?
    private var (probes, proxies, watch) = (ProbeBook(), ProxyWatch(), RouteWatch())

    init(_ program: Program, _ state: RoutingState) {
        (self.program, self.state) = (program, state)
        prober = HealthProber.start(.none, write: { _ in }).prober
    }

    func follow() {
        let news = state.takeNews()
        proxies.follow(program, state, news)
        watch.follow(state, news)
        prober?.update(probes.follow(program, state, news))
    }

    func stop() { prober?.stop() }
}
