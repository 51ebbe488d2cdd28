//! The AI providers that a route may name: their hosts, their credential headers, their telemetry names.
//!
//! It refuses to know how a provider's bodies are read; parsers live elsewhere.

/// A provider of an `AIProviderRoute`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Provider {
    /// `openai`
    OpenAi,
    /// `anthropic`
    Anthropic,
    /// `google` (Gemini API)
    Google,
    /// `azure-openai`
    AzureOpenAi,
    /// `bedrock`
    Bedrock,
    /// `custom`: hosts and headers are the policy's to name.
    Custom,
}

/// The port of HTTPS (RFC 9110 section 4.2.2), which is the port of every `AIProviderRoute`, the default of
/// a `SandboxProxyRule`, and never a place for plaintext.
pub const HTTPS_PORT: u16 = 443;

/// Every header in which some provider takes a credential; all of them are stripped from what the
/// sandbox sent to a provider's route.
const CREDENTIAL_HEADERS: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "anthropic-api-key",
    "openai-api-key",
    "x-auth-token",
];

/// As above, and the session token that goes with an AWS signature.
const BEDROCK_CREDENTIAL_HEADERS: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "anthropic-api-key",
    "openai-api-key",
    "x-auth-token",
    "x-amz-security-token",
];

impl Provider {
    /// The providers by the names a policy uses.
    pub(super) const NAMES: &'static [(&'static str, Self)] = &[
        ("openai", Self::OpenAi),
        ("anthropic", Self::Anthropic),
        ("google", Self::Google),
        ("azure-openai", Self::AzureOpenAi),
        ("bedrock", Self::Bedrock),
        ("custom", Self::Custom),
    ];

    /// Every provider.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::NAMES.iter().map(|(_, provider)| *provider)
    }

    /// The name that a policy uses.
    #[must_use]
    pub fn policy_name(self) -> &'static str {
        let mut names = Self::NAMES.iter();
        // The table has every provider: a test says so.
        names
            .find(|(_, provider)| *provider == self)
            .map_or("custom", |(name, _)| name)
    }

    /// The value of `gen_ai.provider.name` (OpenTelemetry GenAI semantic conventions).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Google => "gcp.gemini",
            Self::AzureOpenAi => "azure.ai.openai",
            Self::Bedrock => "aws.bedrock",
            Self::Custom => "custom",
        }
    }

    /// Header names (lower case) in which the sandbox could smuggle a credential of its own: removed
    /// from every request of an injected route before the real one is set.
    #[must_use]
    pub fn credential_headers(self) -> &'static [&'static str] {
        match self {
            Self::Bedrock => BEDROCK_CREDENTIAL_HEADERS,
            Self::OpenAi | Self::Anthropic | Self::Google | Self::AzureOpenAi | Self::Custom => {
                CREDENTIAL_HEADERS
            }
        }
    }

    /// The environment variable in which the provider's own clients look for a key; in the sandbox it
    /// holds a placeholder.
    #[must_use]
    pub fn api_key_env(self) -> Option<&'static str> {
        match self {
            Self::OpenAi => Some("OPENAI_API_KEY"),
            Self::Anthropic => Some("ANTHROPIC_API_KEY"),
            Self::Google => Some("GEMINI_API_KEY"),
            Self::AzureOpenAi => Some("AZURE_OPENAI_API_KEY"),
            Self::Bedrock => Some("AWS_BEARER_TOKEN_BEDROCK"),
            Self::Custom => None,
        }
    }

    /// The host patterns meant when a match names none. Bedrock's `bedrock-runtime.REGION.amazonaws.com`
    /// has its variable label in the middle, which no pattern expresses: its hosts must be written.
    #[must_use]
    pub fn default_hosts(self) -> &'static [&'static str] {
        match self {
            Self::OpenAi => &["api.openai.com"],
            Self::Anthropic => &["api.anthropic.com"],
            Self::Google => &["generativelanguage.googleapis.com"],
            Self::AzureOpenAi => &["*.openai.azure.com"],
            Self::Bedrock | Self::Custom => &[],
        }
    }

    /// The header in which the provider takes its key, lower case.
    #[must_use]
    pub fn default_header(self) -> Option<&'static str> {
        match self {
            Self::OpenAi => Some("authorization"),
            Self::Anthropic => Some("x-api-key"),
            Self::Google => Some("x-goog-api-key"),
            Self::AzureOpenAi => Some("api-key"),
            Self::Bedrock | Self::Custom => None,
        }
    }

    /// How the provider wants its key written in `header` (lower case).
    #[must_use]
    pub fn default_template(self, header: &str) -> &'static str {
        // Each named provider takes bearer tokens and nothing else in `authorization`.
        if header == "authorization" && self != Self::Custom {
            "Bearer {{ value }}"
        } else {
            "{{ value }}"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Provider;

    #[test]
    fn every_default_header_is_stripped_first() {
        for (name, provider) in Provider::NAMES {
            if let Some(header) = provider.default_header() {
                assert!(
                    provider.credential_headers().contains(&header),
                    "{name}: {header}"
                );
            }
        }
    }

    #[test]
    fn every_default_host_is_a_pattern() {
        for (name, provider) in Provider::NAMES {
            for host in provider.default_hosts() {
                assert!(
                    crate::policy::HostPattern::parse(host).is_ok(),
                    "{name}: {host}"
                );
            }
        }
    }
}
