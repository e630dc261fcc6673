import FilterAddressMatch
import FilterAntiSpoof
import FilterBackendSelect
import FilterEgressAccounting
import FilterProxyV1
import FilterProxyV2
import FilterRateLimit
import FilterSNI
import FilterStartTLS
import Pipeline

/// Every filter, one line each. The order determines reason codes in counters and logs of running nodes: add at the
/// end, never reorder.
public let catalog: [any Filter.Type] = [
    AddressFilter.self,
    AntiSpoofFilter.self,
    SNIFilter.self,
    BackendFilter.self,
    ProxyV2Filter.self,
    AccountFilter.self,
    RateLimitFilter.self,
    ProxyV1Filter.self,
    StartTLSFilter.self,
]

extension [any Filter.Type] {
    /// All filters of this package.
    public static var standard: [any Filter.Type] { catalog }
}
