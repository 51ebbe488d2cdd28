//! What the engine understands and the gateway does not enforce yet: refused with its place, never ignored.
//!
//! It refuses to know how such a thing is written. A line of [`UNSUPPORTED`] goes when its data path is there;
//! nothing else has to change.

/// Something that a policy may ask for and that takes more than a decision to enforce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Feature {
    /// `AIProviderRoute` `matches[].models`.
    Models,
    /// `AIProviderRoute` `filters[].type: TokenBudget`.
    TokenBudget,
    /// `CredentialInjectionPolicy` `target: QueryParam`.
    QueryParam,
    /// `CredentialInjectionPolicy` `providerAuth.type: AWSv4`.
    AwsV4,
    /// `CredentialInjectionPolicy` `providerAuth.type: GCPServiceAccount`.
    GcpServiceAccount,
    /// `EgressL4Route` `protocol: UDP`.
    Udp,
    /// `EgressGateway` `otlp.protocol: grpc`.
    OtlpGrpc,
    /// `EgressGateway` `upstreamTLS.clientCertSecretRef`.
    ClientCertificate,
    /// `EgressGateway` `dns.upstreams: [tls://…]`.
    DnsOverTls,
    /// Kind `SandboxBinding`.
    SandboxBinding,
}

/// The features that are refused, and what they are called.
const UNSUPPORTED: &[(Feature, &str)] = &[(Feature::OtlpGrpc, "OTLP over gRPC")];

/// The features that one compilation refuses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Features {
    refused: &'static [(Feature, &'static str)],
}

impl Features {
    /// What the gateway enforces.
    pub(super) const ENFORCED: Self = Self {
        refused: UNSUPPORTED,
    };

    /// Everything that the engine understands.
    #[cfg(test)]
    pub(super) const ALL: Self = Self { refused: &[] };

    /// What the feature is called, if it is refused.
    pub(super) fn refuses(self, feature: Feature) -> Option<&'static str> {
        let mut refused = self.refused.iter();
        refused
            .find(|(known, _)| *known == feature)
            .map(|(_, name)| *name)
    }
}
