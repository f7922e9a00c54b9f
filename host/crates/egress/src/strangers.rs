//! Names below which anyone can get one of their own.

/// Beside the public suffix list: storage, clouds, tunnels, and names that spell an address. So is every
/// name below one of these. It is a list: what stands in neither is not known to be anyone's.
const OURS: [&str; 33] = [
    "aliyuncs.com",
    "amazonaws.com",
    "amazonaws.com.cn",
    "azure.com",
    "azureedge.net",
    "azurewebsites.net",
    "backblazeb2.com",
    "cloudflarestorage.com",
    "core.windows.net",
    "digitaloceanspaces.com",
    "endpoints.huggingface.cloud",
    "githubusercontent.com",
    "gitlab.io",
    "googleapis.com",
    "googleusercontent.com",
    "gradio.live",
    "hf.space",
    "idrivee2.com",
    "lhr.life",
    "loca.lt",
    "modal.run",
    "myhuaweicloud.com",
    "myqcloud.com",
    "ngrok.io",
    "nip.io",
    "oraclecloud.com",
    "r2.dev",
    "runpod.net",
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
