"""CMMLU's 67 subjects by category, as the card's script has them (eval/evaluate_cmmlu.py)."""

CATEGORIES = {
    "STEM": """anatomy astronomy college_actuarial_science college_engineering_hydrology college_mathematics
        college_medical_statistics computer_science conceptual_physics electrical_engineering
        elementary_mathematics genetics high_school_biology high_school_chemistry
        high_school_mathematics high_school_physics machine_learning virology""".split(),
    "Humanities": """arts chinese_history chinese_literature college_law global_facts international_law jurisprudence
        logical marxist_theory philosophy professional_law world_history world_religions""".split(),
    "Social Science": """ancient_chinese business_ethics chinese_civil_service_exam chinese_food_culture
        chinese_foreign_policy chinese_teacher_qualification college_education economics
        education elementary_chinese ethnology high_school_geography high_school_politics
        journalism management marketing modern_chinese professional_accounting
        professional_psychology public_relations security_study sociology""".split(),
    "Other": """agronomy chinese_driving_rule clinical_knowledge college_medicine computer_security
        construction_project_management elementary_commonsense
        elementary_information_and_technology food_science human_sexuality legal_and_moral_basis
        nutrition professional_medicine sports_science traditional_chinese_medicine""".split(),
}
# each of these is in one of the four as well
CHINA_SPECIFIC = """ancient_chinese chinese_civil_service_exam chinese_driving_rule chinese_food_culture
    chinese_foreign_policy chinese_history chinese_literature chinese_teacher_qualification
    construction_project_management elementary_chinese elementary_commonsense ethnology
    high_school_politics modern_chinese traditional_chinese_medicine""".split()
