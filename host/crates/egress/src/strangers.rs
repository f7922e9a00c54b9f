//! Names below which anyone can get one of their own.

/// Beside the public suffix list: storage, clouds, tunnels, and names that spell an address. So is every
/// name below one of these.
const OURS: [&str; 23] = [
    "amazonaws.com",
    "amazonaws.com.cn",
    "azure.com",
    "azureedge.net",
    "azurewebsites.net",
    "backblazeb2.com",
    "cloudflarestorage.com",
    "core.windows.net",
    "digitaloceanspaces.com",
    "githubusercontent.com",
    "gitlab.io",
    "googleapis.com",
    "googleusercontent.com",
    "hf.space",
    "myqcloud.com",
    "ngrok.io",
    "nip.io",
    "r2.dev",
    "sslip.io",
    "trycloudflare.com",
    "wasabisys.com",
    "windows.net",
    "xip.io",
];

/// Whether anyone can get a name below this one.
pub(crate) fn are_given_names_below(name: &str) -> bool {
    let listed =
        |ours: &str| name.strip_suffix(ours).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    psl::suffix_str(name).is_none_or(|suffix| suffix == name) || OURS.into_iter().any(listed)
}
