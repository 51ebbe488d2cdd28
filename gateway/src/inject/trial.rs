//! Whether a credential could be set as things are, without a request: what `check` and `explain` ask of secrets. Nothing
//! is sent, and whether anybody takes the credential is not known here.

use super::{InjectError, aws, field_value, tokens};
use crate::policy::{Injection, InjectionTarget};
use crate::secrets::Secrets;

/// Makes of the secrets what a request would need of them, and throws it away.
///
/// # Errors
/// As a request would get them, but for those that depend on the request or on a token endpoint.
pub fn try_out(injection: &Injection, secrets: &Secrets) -> Result<(), InjectError> {
    let find = &mut |reference: &_| secrets.get(reference);
    match &injection.target {
        InjectionTarget::Header { name, template } => {
            field_value(name, &template.render(find)?)?;
        }
        InjectionTarget::QueryParam { template, .. } => {
            template.render(find)?;
        }
        InjectionTarget::AwsV4 {
            access_key_id,
            secret_access_key,
            session_token,
            ..
        } => {
            aws::credentials(secrets, access_key_id, secret_access_key, session_token)?;
        }
        InjectionTarget::AccessToken(source) => tokens::try_out(secrets, source)?,
    }
    Ok(())
}
