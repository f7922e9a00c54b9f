//! Official clients, judged by what they got. They are there where `ML_INTERN_CLIENTS` names their environment.
